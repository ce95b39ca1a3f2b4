"""What the shop's gateway does not let its agents do: policies and the labels one of them asks for; and its masks."""

from __future__ import annotations

from typing import Final

DROP: Final = "agents_drop_nothing"
FEW_ROWS: Final = "agents_change_few_rows"
SECRETS: Final = "secrets_after_untrusted"
WHOLE: Final = "agents_ask_for_part"
ASK_FIRST: Final = "bulk_deletes_are_looked_at"

MASKS: Final = """\
[masks.analysts]                        # who studies customers sees tokens for names and addresses
match = { principal = ["nora", "study-agent"] }
columns = [
  { column = "public.customers.id", as = "clear" },
  { column = "public.*.customer_id", as = "clear" },
  { column = "public.customers.city", as = "clear" },
  { column = "public.customers.*", as = "token" },
  { column = "public.*", as = "null" },
]

"""

LABELS: Final = """\
[labels]
untrusted = ["public.tickets.body"]     # what strangers have written
secret = ["public.cards.*"]

"""

POLICIES: Final = """\
# What the gateway refuses before it runs, or undoes before it is committed.
id: agents_drop_nothing
title: Agents drop nothing
description: Tables are dropped by migrations, which people review.
severity: high
kinds: [statement]
when: principal.kind == "agent" && statement.operations.exists(o, o.startsWith("drop_"))
effect: deny
message: "{who} {done:dropped|drop} {what} in {where}"
hint: Rename the table to old_…, and ask the owner of the schema to drop it.
runbook: Read the agent's task. If the table is to go, its owner drops it.
tests:
  - name: an agent drops a table
    match: true
    action: {relations: [public.drafts], principal: {kind: agent}, statement: {operations: [drop_table]}}
  - name: a person drops a table
    match: false
    action: {relations: [public.drafts], principal: {kind: human}, statement: {operations: [drop_table]}}
---
id: agents_change_few_rows
title: Agents change few rows
description: An agent works on single records; whoever changes many at once has a wrong condition.
severity: high
kinds: [statement]
when: >-
  principal.kind == "agent"
  && statement.operations.exists(o, o in ["update", "delete", "merge", "do"])
effect: limit
max_rows: 50
message: "{who} {done:changed|change} rows of {what} in {where}"
hint: Change at most 50 rows at a time, by their keys.
runbook: Read the agent's task, and what it asked for. Nothing was changed.
tests:
  - {name: an agent deletes, match: true, action: {principal: {kind: agent}, statement: {operations: [delete]}}}
  - {name: a person deletes, match: false, action: {principal: {kind: human}, statement: {operations: [delete]}}}
---
id: bulk_deletes_are_looked_at
title: Bulk deletes of records are looked at first
description: Prices of the past and carts are the basis of accounts. An agent deletes many only when sales has said yes.
severity: high
kinds: [statement]
when: >-
  asked && principal.kind == "agent" && "delete" in statement.operations
  && relations.exists(r, r in ["public.old_prices", "public.carts"])
effect: approve
max_rows: 50
approve: {by: [sales], needed: 1, within: 8h, use_within: 10m}
message: "{who} wants to delete rows of {what} in {where}"
runbook: Look at it with `pgwitness approvals show`, or in the console.
tests:
  - name: an agent deletes carts
    match: true
    action: {asked: true, relations: [public.carts], principal: {kind: agent}, statement: {operations: [delete]}}
  - name: it has done so, as approved
    match: false
    action: {relations: [public.carts], principal: {kind: agent}, statement: {operations: [delete]}}
  - name: a person deletes carts
    match: false
    action: {asked: true, relations: [public.carts], principal: {kind: human}, statement: {operations: [delete]}}
---
id: agents_ask_for_part
title: Agents read no table of people whole
description: An agent that studies customers needs some of them, or numbers. All of them at once is an export.
severity: high
kinds: [statement]
when: principal.kind == "agent" && "public.customers" in statement.whole
effect: deny
message: "{who} asked for all of {what} in {where}"
hint: Say in WHERE which customers you need, or count them by town.
runbook: Read the agent's task. Nothing was given to it.
tests:
  - name: an agent asks for all
    match: true
    action: {principal: {kind: agent}, statement: {operations: [select], whole: [public.customers]}}
  - {name: an agent asks for some, match: false, action: {principal: {kind: agent}, statement: {operations: [select]}}}
---
id: secrets_after_untrusted
title: Secrets behind untrusted text
description: Who has read what strangers wrote may have been talked into something.
severity: high
kinds: [statement]
when: principal.kind == "agent" && "untrusted" in read_before && "secret" in statement.labels
effect: deny
message: "{who} has read what a stranger wrote and asked for {what}"
hint: Begin a new session, and do not read tickets in it.
runbook: Read the ticket that it has read, in `timeline`; end its session.
tests:
  - name: cards behind a ticket
    match: true
    action:
      read_before: [untrusted]
      relations: [public.cards]
      principal: {kind: agent}
      statement: {labels: [secret]}
  - name: cards
    match: false
    action: {relations: [public.cards], principal: {kind: agent}, statement: {labels: [secret]}}
"""
