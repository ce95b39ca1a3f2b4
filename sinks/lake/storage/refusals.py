"""What an object storage refuses, as an error that says what to do. Pure."""

from __future__ import annotations

import re
from pathlib import PurePath

_CODE = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
_NO_ANSWER = re.compile(r"HTTP error|error sending request|timed out|timeout|connection|response body", re.IGNORECASE)
_STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")

RIGHTS = (
    "give these credentials s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject below it"
)
CREDENTIALS = "correct the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the host's role)"
REGION = "set lake.s3.region to the region of the bucket"
SLOWER = "the storage is busy or asks to slow down: if that goes on, raise its limits"
CERTIFICATE = "its certificate is not trusted: set lake.s3.ca_file to the authority that signed it"
LOOK_UP = "look up this answer of the storage"
REACH = "look at the network and at lake.s3.endpoint"
GONE = "No such file in the lake: {name}"
ALTERED = "somebody has altered it: restore it from a copy of the lake"
_ADVICE = {
    "AccessDenied": RIGHTS,
    "AllAccessDisabled": RIGHTS,
    "AuthorizationHeaderMalformed": REGION,
    "ExpiredToken": "the credentials have expired: renew them",
    "InternalError": SLOWER,
    "InvalidAccessKeyId": CREDENTIALS,
    "InvalidToken": CREDENTIALS,
    "NoSuchBucket": "there is no such bucket: make it, or correct lake.path",
    "NotImplemented": "this storage lacks something that a lake needs: update it, or put the lake on another one",
    "PermanentRedirect": REGION,
    "IllegalLocationConstraintException": REGION,
    "QuotaExceeded": "the quota is used up: raise it, or make room",
    "RequestTimeTooSkewed": "the clock of this host is wrong: set it, best by NTP",
    "RequestTimeout": REACH,
    "ServiceUnavailable": SLOWER,
    "SignatureDoesNotMatch": CREDENTIALS,
    "SlowDown": SLOWER,
    "XMinioStorageFull": "the storage is full: make room",
}
_ROLES = ("http://169.254.169.254/", "http://169.254.170.2/")
"""Where hosts and containers of AWS ask for the credentials of their role, when nothing else says any."""
_BY_STATUS = {"301": REGION, "401": CREDENTIALS, "403": RIGHTS, "429": SLOWER, "500": SLOWER, "503": SLOWER}


class Refused(OSError):
    """The storage refused, or did not answer; `advice` says what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what)
        self.advice = advice

    @property
    def unreachable(self) -> bool:
        """Whether there was no answer at all."""
        return self.advice == REACH


def refusal(text: str, path: PurePath) -> Refused:
    """Make the error of what the client library says, which may be an answer of the storage in XML."""
    code, message = _CODE.search(text), _MESSAGE.search(text)
    status = _STATUS.search(text)
    number = (status[1] or status[2]) if status else ""
    if "invalid peer certificate" in text or "UnknownIssuer" in text:
        return Refused(f"{path}: the connection was not made", CERTIFICATE)
    if any(place in text for place in _ROLES):
        return Refused("no credentials were found, and this host has no role", CREDENTIALS)
    if code is None and "redirect" in text:
        return Refused(f"{path} is elsewhere", REGION)
    if code is None:
        said = text.partition("\n")[0].rpartition(" - ")[2][:300]
        what = f"{path} answered {number}" if number else f"{path}: {said}"
        unknown = REACH if not number and _NO_ANSWER.search(text) else LOOK_UP
        return Refused(what, _BY_STATUS.get(number, unknown))
    name = code[1] or code[2]
    what = f"{name}: {message[1]}" if message else name
    return Refused(what, _ADVICE.get(name) or _BY_STATUS.get(number, LOOK_UP))
