/* The gateway's short lane: what is asked and answered most is taken here, the same way as `session.Session` takes it.
 *
 * `shape` gives of a text what is left without its literals (`collectors.log.interpretation.texts.quick_shape`), or
 * nothing where the rules it knows may not be enough. A `Lane` takes a read of a client that is exactly one Query whose
 * shape was decided on, or a pipeline [Parse] Bind [Describe] Execute Sync of such a statement, and the read of the
 * answer that is whole; it writes the same records into a `Ledger`. Whatever is otherwise it does not take, and changes
 * nothing then: `Session` does.
 *
 * Bytes come from outside: every length is checked against the end of what was read before anything behind it is.
 * Python's limited interface only: one library does for every version from 3.11 on.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <stdint.h>
#include <string.h>
#include <time.h>

#define TEXT_MAX 2048     /* bytes of a text whose shape is found: a longer one is folded first */
#define NAME_MAX_ 63      /* of a longer name the server keeps a part */
#define HEAD_MAX 4096     /* in which the names of a Bind have to end */
#define READ_MAX 65536    /* bytes of a client's read */
#define LINE_SPARE 400    /* what a record takes beyond the texts in it */

/* -- texts ------------------------------------------------------------------------------------------------------- */

enum { SPACE = 1, DIGIT = 2, LETTER = 4 };
static unsigned char sort_of[256];

static void sorts(void)
{
    for (const char *c = " \t\n\r\f\v"; *c; c++) sort_of[(unsigned char)*c] = SPACE;
    for (int c = '0'; c <= '9'; c++) sort_of[c] = DIGIT;
    for (int c = 'a'; c <= 'z'; c++) sort_of[c] = sort_of[c - 32] = LETTER;
    sort_of['_'] = LETTER;
}

#define WORD(c) (sort_of[(unsigned char)(c)] & (DIGIT | LETTER))

/* Says whether a word, in lower case, stands at a place, in any case. */
static int stands(const char *at, const char *end, const char *word)
{
    for (; *word; word++, at++)
        if (at >= end || (*at | 32) != *word) return 0;
    return 1;
}

static const char *past_space(const char *at, const char *end)
{
    while (at < end && sort_of[(unsigned char)*at] & SPACE) at++;
    return at;
}

/* Return where a comparison for (in)equality ends that stands at a place, with the space around it; NULL: none does. */
static const char *past_equals(const char *at, const char *end)
{
    at = past_space(at, end);
    if (at < end && *at == '=') at++;
    else if (at + 1 < end && ((at[0] == '<' && at[1] == '>') || (at[0] == '!' && at[1] == '='))) at += 2;
    else return NULL;
    return past_space(at, end);
}

/* Say whether a literal may decide if there are rows at all (`texts.decides`), or nothing may be said for another
 * reason: a comment's end, a backslash, what is not ASCII. In strings too. */
static int decides(const char *text, const char *end)
{
    for (const char *at = text; at < end; at++) {
        unsigned char c = (unsigned char)*at;
        if (c >= 0x80 || c == 0 || c == '\\') return 1;
        if (c == '*' && at + 1 < end && at[1] == '/') return 1;
        if (c == '\'') {
            const char *pattern = at + 1;
            while (pattern < end && *pattern == '%') pattern++;
            if (pattern > at + 1 && pattern < end && (*pattern == '\'' || *pattern == '$')) return 1;
            const char *behind = past_equals(at + 1, end);
            if (behind && behind < end && *behind == '\'') return 1;
        } else if (sort_of[c] & DIGIT) {
            int begins = at == text || !(WORD(at[-1]) || at[-1] == '.' || at[-1] == '$');
            if (!begins) continue;
            const char *behind = at;
            while (behind < end && sort_of[(unsigned char)*behind] & DIGIT) behind++;
            behind = past_equals(behind, end);
            if (behind && behind < end && sort_of[(unsigned char)*behind] & DIGIT) return 1;
        } else if (sort_of[c] & LETTER && (at == text || !WORD(at[-1]))) {
            int length = stands(at, end, "limit") || stands(at, end, "first") ? 5 : stands(at, end, "next") ? 4 : 0;
            if (!length || at + length >= end || !(sort_of[(unsigned char)at[length]] & SPACE)) continue;
            const char *behind = past_space(at + length, end);
            if (behind < end && *behind == '0') return 1;
        }
    }
    return 0;
}

/* Say whether a string may say what its session is for, or take that back (`intent._may`). */
static int speaks(const char *at, const char *end)
{
    for (; at < end; at++) {
        char c = (char)(*at | 32);
        if ((c == 'i' && stands(at, end, "intent")) || (c == 'r' && stands(at, end, "reset")) ||
            (c == 'd' && stands(at, end, "discard")))
            return 1;
    }
    return 0;
}

/* Write the shape of a text, which is never longer than the text; return its length, -1 where it is not certain. */
static Py_ssize_t shape_of(const char *text, Py_ssize_t size, char *out)
{
    const char *at = text, *end = text + size;
    char *to = out;
    if (size < 1 || size > TEXT_MAX || decides(text, end)) return -1;
    while (at < end) {
        char c = *at, before = at > text ? at[-1] : ' ';
        if (sort_of[(unsigned char)c] & LETTER) {
            while (at < end && WORD(*at)) *to++ = *at++;
            if (at < end && *at == '$') return -1;
        } else if (sort_of[(unsigned char)c] & DIGIT) {
            if (before == '.' || before == '$' || before == '\'' || WORD(before)) return -1;
            while (at < end && sort_of[(unsigned char)*at] & DIGIT) at++;
            if (at + 1 < end && *at == '.' && sort_of[(unsigned char)at[1]] & DIGIT)
                for (at++; at < end && sort_of[(unsigned char)*at] & DIGIT;) at++;
            if (at < end && (WORD(*at) || *at == '.' || *at == '$' || *at == '\'')) return -1;
            *to++ = '\0';
        } else if (c == '\'') {
            const char *inside = ++at;
            if (WORD(before) || before == '&' || before == '$' || before == '\'') return -1;
            for (;; at++) {
                if (at >= end) return -1;
                if (*at != '\'') continue;
                if (at + 1 < end && at[1] == '\'') at++;
                else break;
            }
            if (speaks(inside, at)) return -1;
            at++;
            if (at < end && (WORD(*at) || *at == '$')) return -1;
            *to++ = '\'';
            *to++ = '\0';
        } else if (c == '$') {
            if (WORD(before) || before == '$') return -1;
            *to++ = *at++;
            if (at >= end || !(sort_of[(unsigned char)*at] & DIGIT)) return -1;
            while (at < end && sort_of[(unsigned char)*at] & DIGIT) *to++ = *at++;
            if (at < end && (WORD(*at) || *at == '$' || *at == '.' || *at == '\'')) return -1;
        } else {
            if (c == '"' || (at + 1 < end && ((c == '-' && at[1] == '-') || (c == '/' && at[1] == '*')))) return -1;
            *to++ = *at++;
        }
    }
    return to - out;
}

static PyObject *shape(PyObject *module, PyObject *text)
{
    char *data, out[TEXT_MAX];
    Py_ssize_t size;
    (void)module;
    if (PyBytes_AsStringAndSize(text, &data, &size) < 0) return NULL;
    Py_ssize_t length = shape_of(data, size, out);
    if (length < 0) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(out, length);
}

/* -- what is to be written down ---------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    char *data;
    Py_ssize_t size, room, begun;
    PyObject *held;             /* lanes that hold back what they have to forward until the lines are written down */
    PyObject *on_hold, *on_late; /* are told when the first one does, and when lines wait that nobody waits for */
    int late;                   /* that was told, and the lines have not been taken since */
} Ledger;

/* Make room for so many bytes more; return where they go, NULL with an error set. */
static char *ledger_room(Ledger *self, Py_ssize_t more)
{
    if (more > PY_SSIZE_T_MAX / 4 - self->size) {
        PyErr_NoMemory();
        return NULL;
    }
    if (!self->data || self->size + more > self->room) {
        Py_ssize_t room = (self->size + more) * 2 + LINE_SPARE;
        char *data = PyMem_Realloc(self->data, (size_t)room);
        if (!data) {
            PyErr_NoMemory();
            return NULL;
        }
        self->data = data;
        self->room = room;
    }
    return self->data + self->size;
}

static PyObject *ledger_add(PyObject *object, PyObject *args)
{
    Ledger *self = (Ledger *)object;
    const char *data;
    Py_ssize_t size, begun;
    if (!PyArg_ParseTuple(args, "y#n", &data, &size, &begun)) return NULL;
    char *to = ledger_room(self, size);
    if (!to) return NULL;
    memcpy(to, data, (size_t)size);
    self->size += size;
    self->begun += begun;
    Py_RETURN_NONE;
}

static PyObject *ledger_take(PyObject *object, PyObject *unused)
{
    Ledger *self = (Ledger *)object;
    (void)unused;
    PyObject *lines = PyBytes_FromStringAndSize(self->data, self->size);
    PyObject *begun = lines ? PyLong_FromSsize_t(self->begun) : NULL;
    PyObject *taken = begun ? PyTuple_Pack(2, lines, begun) : NULL;
    Py_XDECREF(lines);
    Py_XDECREF(begun);
    if (!taken) return NULL;
    self->size = self->begun = 0;
    self->late = 0;
    if (self->room > 1 << 20) {
        PyMem_Free(self->data);
        self->data = NULL;
        self->room = 0;
    }
    return taken;
}

static int ledger_traverse(PyObject *object, visitproc visit, void *arg)
{
    Ledger *self = (Ledger *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->held);
    Py_VISIT(self->on_hold);
    Py_VISIT(self->on_late);
    return 0;
}

static int ledger_clear(PyObject *object)
{
    Ledger *self = (Ledger *)object;
    Py_CLEAR(self->held);
    Py_CLEAR(self->on_hold);
    Py_CLEAR(self->on_late);
    return 0;
}

static void ledger_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    ledger_clear(object);
    PyMem_Free(((Ledger *)object)->data);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

/* wire(on_hold, on_late) */
static PyObject *ledger_wire(PyObject *object, PyObject *args)
{
    Ledger *self = (Ledger *)object;
    PyObject *on_hold, *on_late;
    if (!PyArg_ParseTuple(args, "OO", &on_hold, &on_late)) return NULL;
    PyObject *held = PyList_New(0), *old[3] = {self->held, self->on_hold, self->on_late};
    if (!held) return NULL;
    Py_INCREF(on_hold);
    Py_INCREF(on_late);
    self->held = held;
    self->on_hold = on_hold;
    self->on_late = on_late;
    for (int at = 0; at < 3; at++) Py_XDECREF(old[at]);
    Py_RETURN_NONE;
}

/* Give the lanes that hold something back, and forget them. */
static PyObject *ledger_release(PyObject *object, PyObject *unused)
{
    Ledger *self = (Ledger *)object;
    (void)unused;
    PyObject *fresh = PyList_New(0), *held = self->held;
    if (!fresh) return NULL;
    self->held = fresh;
    return held ? held : PyList_New(0);
}

/* See that the lines are written down in a moment, where nobody waits for them. */
static int ledger_later(Ledger *self)
{
    if (self->late || !self->held || PyList_Size(self->held) > 0) return 0;
    PyObject *told = PyObject_CallFunctionObjArgs(self->on_late, NULL);
    if (!told) return -1;
    Py_DECREF(told);
    self->late = 1;
    return 0;
}

static char *put(char *to, const char *data, size_t size)
{
    memcpy(to, data, size);
    return to + size;
}
#define PUT(to, text) put(to, text, sizeof(text) - 1)

static char *put_number(char *to, uint64_t value)
{
    char digits[20];
    int count = 0;
    do digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count) *to++ = digits[--count];
    return to;
}

/* Thousandths, as the shortest number that is the same double. */
static char *put_thousandths(char *to, uint64_t value)
{
    to = put_number(to, value / 1000);
    *to++ = '.';
    unsigned rest = (unsigned)(value % 1000);
    *to++ = (char)('0' + rest / 100);
    if (rest % 100) *to++ = (char)('0' + rest / 10 % 10);
    if (rest % 10) *to++ = (char)('0' + rest % 10);
    return to;
}

/* -- the lane ---------------------------------------------------------------------------------------------------- */

enum { NOTHING, QUERY, EXTENDED };
/* Members of a `Decision`. */
enum { D_SAID, D_VERDICT, D_HANDLES, D_READING, D_SCOPE, D_MARKS, D_FORWARD };

typedef struct {
    PyObject_HEAD
    Ledger *ledger;
    PyObject *session;                       /* whose `statements`, `status` and `_transaction` are kept */
    PyObject *prepared, *portals;            /* `Names` */
    PyObject *prepared_known, *portals_known; /* what these hold by name */
    PyObject *entry;                         /* gives of a decision (said, in JSON), or None where it is not plain */
    PyObject *judging, *scope, *shapes;      /* by whom, where and by which shapes is decided */
    PyObject *suffix;                        /* what a record says behind the statement */
    PyObject *entries;                       /* by decision, what `entry` said */
    long long number, epoch, until_us, rows;
    uint64_t statements, transaction;
    int engaged, many;
    char status;
    /* what is under way */
    int way, parsed, described;
    uint64_t began_ns;
    PyObject *data, *decision, *portal, *statement;
    /* where reads come from and go to, and what goes to the server when its line is written down */
    PyObject *owner, *otherwise_client, *otherwise_server, *to_client, *to_server, *held;
    int barred;
    /* what was answered last */
    PyObject *last;
    uint64_t last_number, ended_ns;
} Lane;

static PyObject *s_statements, *s_status, *s_transaction, *s_epoch, *s_put, *s_clear, *s_idle, *s_open;

static int lane_traverse(PyObject *object, visitproc visit, void *arg)
{
    Lane *self = (Lane *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->ledger);
    Py_VISIT(self->session);
    Py_VISIT(self->prepared);
    Py_VISIT(self->portals);
    Py_VISIT(self->prepared_known);
    Py_VISIT(self->portals_known);
    Py_VISIT(self->entry);
    Py_VISIT(self->judging);
    Py_VISIT(self->scope);
    Py_VISIT(self->shapes);
    Py_VISIT(self->suffix);
    Py_VISIT(self->entries);
    Py_VISIT(self->data);
    Py_VISIT(self->decision);
    Py_VISIT(self->portal);
    Py_VISIT(self->statement);
    Py_VISIT(self->last);
    Py_VISIT(self->owner);
    Py_VISIT(self->otherwise_client);
    Py_VISIT(self->otherwise_server);
    Py_VISIT(self->to_client);
    Py_VISIT(self->to_server);
    Py_VISIT(self->held);
    return 0;
}

/* Take up that nothing is under way. */
static void lane_over(Lane *self)
{
    self->way = NOTHING;
    Py_CLEAR(self->data);
    Py_CLEAR(self->decision);
    Py_CLEAR(self->portal);
    Py_CLEAR(self->statement);
}

static int lane_clear(PyObject *object)
{
    Lane *self = (Lane *)object;
    self->engaged = 0;
    lane_over(self);
    Py_CLEAR(self->ledger);
    Py_CLEAR(self->session);
    Py_CLEAR(self->prepared);
    Py_CLEAR(self->portals);
    Py_CLEAR(self->prepared_known);
    Py_CLEAR(self->portals_known);
    Py_CLEAR(self->entry);
    Py_CLEAR(self->judging);
    Py_CLEAR(self->scope);
    Py_CLEAR(self->shapes);
    Py_CLEAR(self->suffix);
    Py_CLEAR(self->entries);
    Py_CLEAR(self->last);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->otherwise_client);
    Py_CLEAR(self->otherwise_server);
    Py_CLEAR(self->to_client);
    Py_CLEAR(self->to_server);
    Py_CLEAR(self->held);
    return 0;
}

static void lane_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    lane_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyTypeObject *ledger_type;

/* Lane(ledger, session, number, prepared, portals, entry, entries) */
static int lane_init(PyObject *object, PyObject *args, PyObject *named)
{
    Lane *self = (Lane *)object;
    PyObject *ledger, *session, *prepared, *portals, *entry, *entries;
    long long number;
    (void)named;
    if (self->session) {
        PyErr_SetString(PyExc_TypeError, "a lane is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "OOLOOOO", &ledger, &session, &number, &prepared, &portals, &entry, &entries)) return -1;
    if (!PyObject_TypeCheck(ledger, ledger_type) || !PyDict_Check(entries) || number < 0) {
        PyErr_SetString(PyExc_TypeError, "a lane wants a ledger, a session, its number, names, and entries");
        return -1;
    }
    self->prepared_known = PyObject_GetAttrString(prepared, "known");
    self->portals_known = PyObject_GetAttrString(portals, "known");
    if (!self->prepared_known || !self->portals_known) return -1;
    if (!PyDict_Check(self->prepared_known) || !PyDict_Check(self->portals_known)) {
        PyErr_SetString(PyExc_TypeError, "names are in a dict");
        return -1;
    }
    Py_INCREF(ledger);
    Py_INCREF(session);
    Py_INCREF(prepared);
    Py_INCREF(portals);
    Py_INCREF(entry);
    Py_INCREF(entries);
    self->ledger = (Ledger *)ledger;
    self->session = session;
    self->prepared = prepared;
    self->portals = portals;
    self->entry = entry;
    self->entries = entries;
    self->number = number;
    return 0;
}

/* enter(judging, epoch, scope, until_us, shapes, many, suffix, status, statements, transaction) */
static PyObject *lane_enter(PyObject *object, PyObject *args)
{
    Lane *self = (Lane *)object;
    PyObject *judging, *scope, *shapes, *suffix;
    long long epoch, until_us;
    unsigned long long statements, transaction;
    int many;
    const char *status;
    if (!self->session) {
        PyErr_SetString(PyExc_TypeError, "the lane was not made");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OLOLO!pSsKK", &judging, &epoch, &scope, &until_us, &PyDict_Type, &shapes, &many,
                          &suffix, &status, &statements, &transaction))
        return NULL;
    if (self->way != NOTHING) {
        PyErr_SetString(PyExc_RuntimeError, "something is under way");
        return NULL;
    }
    PyObject *old[4] = {self->judging, self->scope, self->shapes, self->suffix};
    Py_INCREF(judging);
    Py_INCREF(scope);
    Py_INCREF(shapes);
    Py_INCREF(suffix);
    self->judging = judging;
    self->scope = scope;
    self->shapes = shapes;
    self->suffix = suffix;
    for (int at = 0; at < 4; at++) Py_XDECREF(old[at]);
    self->epoch = epoch;
    self->until_us = until_us;
    self->many = many;
    self->statements = statements;
    self->transaction = transaction;
    self->status = *status;
    self->engaged = *status == 'I' || *status == 'T';
    Py_RETURN_NONE;
}

/* Give back what is under way: (parsed, described, data, decision, portal, statement, number, began_ns), or None. */
static PyObject *lane_leave(PyObject *object, PyObject *unused)
{
    Lane *self = (Lane *)object;
    (void)unused;
    self->engaged = 0;
    if (self->way == NOTHING) Py_RETURN_NONE;
    PyObject *portal = self->portal ? self->portal : Py_None, *statement = self->statement ? self->statement : Py_None;
    PyObject *left = Py_BuildValue("(iiOOOOKK)", self->parsed, self->described, self->data, self->decision, portal,
                                   statement, (unsigned long long)self->statements, (unsigned long long)self->began_ns);
    if (left) lane_over(self);
    return left;
}

static int now(PyObject *const *args, Py_ssize_t count, long long *us, uint64_t *ns)
{
    if (count == 3) {
        *us = PyLong_AsLongLong(args[1]);
        *ns = PyLong_AsUnsignedLongLong(args[2]);
        return PyErr_Occurred() ? -1 : 0;
    }
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    *us = (long long)time.tv_sec * 1000000 + time.tv_nsec / 1000;
    clock_gettime(CLOCK_MONOTONIC, &time); /* time.perf_counter_ns */
    *ns = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
    return 0;
}

static int set_number(PyObject *object, PyObject *name, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int failed = number ? PyObject_SetAttr(object, name, number) : -1;
    Py_XDECREF(number);
    return failed;
}

/* Say whether what was decided by holds: 1, 0, or -1 with an error set. */
static int holds(Lane *self, long long us)
{
    if (us >= self->until_us) return 0;
    PyObject *epoch = PyObject_GetAttr(self->judging, s_epoch);
    if (!epoch) return -1;
    long long value = PyLong_AsLongLong(epoch);
    Py_DECREF(epoch);
    return value == -1 && PyErr_Occurred() ? -1 : value == self->epoch;
}

/* Return a decision and what is said of it by the shape of a text, both borrowed; 0 where there is none. */
static int by_shape(Lane *self, const char *text, Py_ssize_t size, PyObject **decision, PyObject **said)
{
    char out[TEXT_MAX];
    Py_ssize_t length = shape_of(text, size, out);
    if (length < 0) return 0;
    PyObject *key = PyBytes_FromStringAndSize(out, length);
    if (!key) return -1;
    PyObject *entry = PyDict_GetItemWithError(self->shapes, key);
    Py_DECREF(key);
    if (!entry) return PyErr_Occurred() ? -1 : 0;
    *decision = PyTuple_GetItem(entry, 0);
    *said = *decision ? PyTuple_GetItem(entry, 1) : NULL;
    return *said ? 1 : -1;
}

/* Return what is said of a decision that was made before, borrowed; 0 where it is not plain or holds elsewhere. */
static int of_decision(Lane *self, PyObject *decision, PyObject **said)
{
    PyObject *scope = PyTuple_GetItem(decision, D_SCOPE);
    if (!scope) return -1;
    if (scope != self->scope) return 0;
    PyObject *key = PyLong_FromVoidPtr(decision);
    if (!key) return -1;
    PyObject *entry = PyDict_GetItemWithError(self->entries, key);
    Py_DECREF(key);
    if (!entry) {
        if (PyErr_Occurred()) return -1;
        PyObject *made = PyObject_CallFunctionObjArgs(self->entry, decision, NULL); /* puts it into `entries` */
        if (!made) return -1;
        Py_DECREF(made);
        key = PyLong_FromVoidPtr(decision);
        if (!key) return -1;
        entry = PyDict_GetItemWithError(self->entries, key);
        Py_DECREF(key);
        if (!entry) return PyErr_Occurred() ? -1 : 0;
    }
    *said = PyTuple_GetItem(entry, 1);
    if (!*said) return -1;
    return *said != Py_None;
}

/* Say whether what a name stands for until now may run too, here: 1, 0, or -1 with an error set. */
static int harmless(Lane *self, PyObject *known, PyObject *name)
{
    PyObject *held = PyDict_GetItemWithError(known, name), *said;
    if (!held) return PyErr_Occurred() ? -1 : 1;
    return of_decision(self, held, &said);
}

/* Write down that a statement begins; what it is given is held by whoever calls. */
static int begin(Lane *self, int way, PyObject *data, PyObject *decision, PyObject *said, long long us, uint64_t ns)
{
    char *text, *suffix;
    Py_ssize_t size, length;
    if (PyBytes_AsStringAndSize(said, &text, &size) < 0) return -1;
    if (PyBytes_AsStringAndSize(self->suffix, &suffix, &length) < 0) return -1;
    char *to = ledger_room(self->ledger, size + length + LINE_SPARE), *from = to;
    if (!to) return -1;
    if (set_number(self->session, s_statements, self->statements + 1) < 0) return -1;
    self->statements++;
    to = PUT(to, "{\"record\":\"begun\",\"session\":");
    to = put_number(to, (uint64_t)self->number);
    to = PUT(to, ",\"at_us\":");
    to = put_number(to, (uint64_t)us);
    to = PUT(to, ",\"number\":");
    to = put_number(to, self->statements);
    to = way == QUERY ? PUT(to, ",\"way\":\"query\",\"said\":") : PUT(to, ",\"way\":\"execute\",\"said\":");
    to = put(to, text, (size_t)size);
    to = put(to, suffix, (size_t)length);
    to = PUT(to, "}\n");
    self->ledger->size += to - from;
    self->ledger->begun++;
    self->way = way;
    self->began_ns = ns;
    Py_INCREF(data);
    Py_INCREF(decision);
    self->data = data;
    self->decision = decision;
    return 0;
}

static int took_query(Lane *self, PyObject *data, const char *at, const char *end, long long us, uint64_t ns)
{
    PyObject *decision, *said;
    Py_ssize_t size = end - at - 6;
    if (size < 1 || size > TEXT_MAX || memchr(at + 5, 0, (size_t)size) || end[-1]) return 0;
    int found = by_shape(self, at + 5, size, &decision, &said);
    if (found <= 0) return found;
    self->parsed = self->described = 0;
    Py_INCREF(decision);
    Py_INCREF(said);
    found = begin(self, QUERY, data, decision, said, us, ns) < 0 ? -1 : 1;
    Py_DECREF(said);
    Py_DECREF(decision);
    return found;
}

/* Cut a message of a kind off the front; return its body's size, -1 where there is none that is whole. */
static Py_ssize_t cut(const char **at, const char *end, char kind, const char **body)
{
    if (end - *at < 5 || **at != kind) return -1;
    const unsigned char *head = (const unsigned char *)*at;
    uint32_t length = (uint32_t)head[1] << 24 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 8 | head[4];
    if (length < 4 || (Py_ssize_t)length > end - *at - 1) return -1;
    *body = *at + 5;
    *at += 1 + (Py_ssize_t)length;
    return (Py_ssize_t)length - 4;
}

/* Cut a text that ends with a zero off the front of a body; return its length, -1 where there is none. */
static Py_ssize_t cut_text(const char **at, const char *end)
{
    const char *zero = end > *at ? memchr(*at, 0, (size_t)(end - *at)) : NULL;
    if (!zero) return -1;
    Py_ssize_t length = zero - *at;
    *at = zero + 1;
    return length;
}

static int took_extended(Lane *self, PyObject *data, const char *at, const char *end, long long us, uint64_t ns)
{
    PyObject *decision = NULL, *said = NULL, *portal = NULL, *statement = NULL;
    const char *body, *text = NULL, *name = NULL, *portal_name, *statement_name;
    Py_ssize_t size, text_size = 0, name_size = 0, portal_size, statement_size;
    int parsed = 0, described = 0, found;
    if (*at == 'P') {
        if ((size = cut(&at, end, 'P', &body)) < 0) return 0;
        const char *till = body + size;
        parsed = 1;
        name = body;
        if ((name_size = cut_text(&body, till)) < 0 || name_size > NAME_MAX_) return 0;
        text = body;
        if ((text_size = cut_text(&body, till)) < 1 || till - body < 2) return 0;
        unsigned types = (unsigned)(unsigned char)body[0] << 8 | (unsigned char)body[1];
        if (till - body != 2 + 4 * (Py_ssize_t)types) return 0;
    }
    if ((size = cut(&at, end, 'B', &body)) < 0) return 0;
    const char *till = body + (size < HEAD_MAX - 5 ? size : HEAD_MAX - 5);
    portal_name = body;
    if ((portal_size = cut_text(&body, till)) < 0 || portal_size > NAME_MAX_) return 0;
    statement_name = body;
    if ((statement_size = cut_text(&body, till)) < 0 || statement_size > NAME_MAX_) return 0;
    if (parsed && (statement_size != name_size || memcmp(statement_name, name, (size_t)name_size))) return 0;
    if (at < end && *at == 'D') {
        if ((size = cut(&at, end, 'D', &body)) != portal_size + 2 || *body != 'P') return 0;
        if (memcmp(body + 1, portal_name, (size_t)portal_size + 1)) return 0;
        described = 1;
    }
    if ((size = cut(&at, end, 'E', &body)) != portal_size + 5) return 0;
    if (memcmp(body, portal_name, (size_t)portal_size + 1)) return 0;
    if (cut(&at, end, 'S', &body) != 0 || at != end) return 0;
    portal = PyBytes_FromStringAndSize(portal_name, portal_size);
    statement = portal ? PyBytes_FromStringAndSize(statement_name, statement_size) : NULL;
    found = statement ? 1 : -1;
    if (found > 0 && parsed) {
        found = by_shape(self, text, text_size, &decision, &said);
    } else if (found > 0) {
        decision = PyDict_GetItemWithError(self->prepared_known, statement);
        found = decision ? of_decision(self, decision, &said) : PyErr_Occurred() ? -1 : 0;
    }
    if (found > 0 && self->many) { /* what the names stood for before may be refused by now */
        found = harmless(self, self->portals_known, portal);
        if (found > 0 && parsed) found = harmless(self, self->prepared_known, statement);
        if (found > 0 && !parsed) found = of_decision(self, decision, &said); /* others may have been forgotten */
    }
    if (found > 0) {
        self->parsed = parsed;
        self->described = described;
        Py_INCREF(decision);
        Py_INCREF(said);
        if (begin(self, EXTENDED, data, decision, said, us, ns) < 0) found = -1;
        Py_DECREF(said);
        Py_DECREF(decision);
        if (found > 0) {
            self->portal = portal;
            self->statement = statement;
            return 1;
        }
    }
    Py_XDECREF(portal);
    Py_XDECREF(statement);
    return found;
}

/* client(data[, us, ns]) -> whether it was taken: its statement is in the ledger, and all of it goes to the server. */
static PyObject *lane_client(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Lane *self = (Lane *)object;
    char *data;
    Py_ssize_t size;
    long long us;
    uint64_t ns;
    if (count != 1 && count != 3) {
        PyErr_SetString(PyExc_TypeError, "client(data[, us, ns])");
        return NULL;
    }
    if (!self->engaged || self->way != NOTHING || self->held || self->barred) Py_RETURN_FALSE;
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0) return NULL;
    if (size < 6 || size > READ_MAX || (*data != 'Q' && *data != 'B' && *data != 'P')) Py_RETURN_FALSE;
    if (now(args, count, &us, &ns) < 0) return NULL;
    if (us < 0) Py_RETURN_FALSE;
    int took = holds(self, us);
    if (took > 0) {
        const char *at = data, *body;
        if (*data != 'Q') took = took_extended(self, args[0], data, data + size, us, ns);
        else if (cut(&at, data + size, 'Q', &body) < 0 || at != data + size) took = 0;
        else took = took_query(self, args[0], data, data + size, us, ns);
    }
    return took < 0 ? NULL : PyBool_FromLong(took);
}

/* Add the rows that a command tag tells of (`backend.command_rows`); 0 where they are too many for here. */
static int add_rows(const char *tag, Py_ssize_t size, uint64_t *rows, int *told)
{
    const char *end = tag + size, *word;
    uint64_t value = 0;
    while (end > tag && !end[-1]) end--;
    for (word = end; word > tag && word[-1] != ' ';) word--;
    if (word == end) return 1;
    for (const char *at = word; at < end; at++)
        if (!(sort_of[(unsigned char)*at] & DIGIT)) return 1;
    if (end - word > 17) return 0;
    for (; word < end; word++) value = value * 10 + (uint64_t)(*word - '0');
    *rows += value;
    *told = 1;
    return *rows < (uint64_t)1 << 60;
}

/* Read an answer; return how its session stands behind it, 0 where it is not one that is whole and without a doubt. */
static char answered(Lane *self, const char *at, const char *end, uint64_t *rows, int *told)
{
    /* Of the extended protocol, in their order: 1, 2, T or n, C or I. */
    int parsing = self->way == EXTENDED && self->parsed, binding = self->way == EXTENDED;
    int describing = self->way == EXTENDED && self->described, completed = 0;
    while (end - at >= 5) {
        const char *body;
        char kind = *at;
        Py_ssize_t size = cut(&at, end, kind, &body);
        if (size < 0) return 0;
        switch (kind) {
        case 'D':
            if (parsing || binding || describing || completed) return 0;
            break;
        case 'N':
        case 'A':
            break;
        case 'T':
            if (self->way == QUERY) break;
            if (parsing || binding || !describing) return 0;
            describing = 0;
            break;
        case 'n':
            if (self->way == QUERY || parsing || binding || !describing) return 0;
            describing = 0;
            break;
        case '1':
            if (!parsing || size) return 0;
            parsing = 0;
            break;
        case '2':
            if (parsing || !binding || size) return 0;
            binding = 0;
            break;
        case 'C':
        case 'I':
            if (parsing || binding || describing || completed) return 0;
            if (kind == 'C' && !add_rows(body, size, rows, told)) return 0;
            completed = self->way == EXTENDED;
            break;
        case 'Z':
            if (size != 1 || at != end || (self->way == EXTENDED && !completed)) return 0;
            return *body == 'I' || *body == 'T' ? *body : 0;
        default:
            return 0;
        }
    }
    return 0;
}

/* Let a name stand for what is under way; 0 where that cannot be. */
static int name(PyObject *names, PyObject *known, PyObject *name, PyObject *decision)
{
    PyObject *held = PyDict_GetItemWithError(known, name);
    if (held == decision) return 1;
    PyObject *put = PyErr_Occurred() ? NULL : PyObject_CallMethodObjArgs(names, s_put, name, decision, NULL);
    if (!put) PyErr_Clear(); /* there are too many: the session says so */
    Py_XDECREF(put);
    return put != NULL;
}

/* server(data[, us, ns]) -> whether it was taken: what came of it is in the ledger, and all of it goes to the client. */
static PyObject *lane_server(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Lane *self = (Lane *)object;
    char *data;
    Py_ssize_t size;
    long long us;
    uint64_t ns, rows = 0;
    int told = 0;
    if (count != 1 && count != 3) {
        PyErr_SetString(PyExc_TypeError, "server(data[, us, ns])");
        return NULL;
    }
    if (self->way == NOTHING) Py_RETURN_FALSE;
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0) return NULL;
    char status = answered(self, data, data + size, &rows, &told);
    if (!status) Py_RETURN_FALSE;
    if (now(args, count, &us, &ns) < 0) return NULL;
    if (us < 0 || ns < self->began_ns) Py_RETURN_FALSE;
    if (self->parsed && !name(self->prepared, self->prepared_known, self->statement, self->decision)) Py_RETURN_FALSE;
    if (self->way == EXTENDED && status == 'T') {
        if (!name(self->portals, self->portals_known, self->portal, self->decision)) Py_RETURN_FALSE;
    } else if (status == 'I' && PyDict_Size(self->portals_known) > 0) {
        PyObject *cleared = PyObject_CallMethodObjArgs(self->portals, s_clear, NULL);
        if (!cleared) return NULL;
        Py_DECREF(cleared);
    }
    char *to = ledger_room(self->ledger, LINE_SPARE), *from = to;
    if (!to) return NULL;
    uint64_t lasted_us = (ns - self->began_ns) / 1000, transaction = status == 'I' ? 0 : self->transaction;
    to = PUT(to, "{\"record\":\"ended\",\"session\":");
    to = put_number(to, (uint64_t)self->number);
    to = PUT(to, ",\"at_us\":");
    to = put_number(to, (uint64_t)us);
    to = PUT(to, ",\"number\":");
    to = put_number(to, self->statements);
    to = status == 'I' ? PUT(to, ",\"outcome\":\"success\"") : PUT(to, ",\"outcome\":\"pending\"");
    if (told) to = put_number(PUT(to, ",\"rows\":"), rows);
    to = put_thousandths(PUT(to, ",\"duration_ms\":"), lasted_us);
    if (transaction) to = put_number(PUT(to, ",\"transaction\":"), transaction);
    to = PUT(to, "}\n");
    if (status != self->status && PyObject_SetAttr(self->session, s_status, status == 'I' ? s_idle : s_open) < 0)
        return NULL;
    if (status == 'I' && set_number(self->session, s_transaction, self->transaction + 1) < 0) return NULL;
    self->ledger->size += to - from;
    self->transaction += status == 'I';
    self->status = status;
    self->rows += (long long)rows;
    PyObject *before = self->last;
    self->last = self->decision;
    self->decision = NULL;
    self->last_number = self->statements;
    self->ended_ns = ns;
    lane_over(self);
    Py_XDECREF(before);
    Py_RETURN_TRUE;
}

/* wire(owner, otherwise_client, otherwise_server, to_client, to_server) */
static PyObject *lane_wire(PyObject *object, PyObject *args)
{
    Lane *self = (Lane *)object;
    PyObject *given[5], *old[5] = {self->owner, self->otherwise_client, self->otherwise_server, self->to_client,
                                   self->to_server};
    if (!PyArg_ParseTuple(args, "OOOOO", &given[0], &given[1], &given[2], &given[3], &given[4])) return NULL;
    if (!self->ledger || !self->ledger->held) {
        PyErr_SetString(PyExc_RuntimeError, "the ledger tells nobody");
        return NULL;
    }
    for (int at = 0; at < 5; at++) Py_INCREF(given[at]);
    self->owner = given[0];
    self->otherwise_client = given[1];
    self->otherwise_server = given[2];
    self->to_client = given[3];
    self->to_server = given[4];
    for (int at = 0; at < 5; at++) Py_XDECREF(old[at]);
    Py_RETURN_NONE;
}

/* Hand what cannot be done to whoever does it otherwise; an error of here is one of the owner's. */
static PyObject *otherwise(Lane *self, PyObject *who, PyObject *data)
{
    if (PyErr_Occurred()) {
        PyObject *type, *value, *trace;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_NormalizeException(&type, &value, &trace);
        PyObject *told = PyObject_CallMethod(self->owner, "defect", "O", value ? value : Py_None);
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(trace);
        return told;
    }
    Py_INCREF(who); /* it may be taken from here meanwhile */
    PyObject *done = PyObject_CallFunctionObjArgs(who, data, NULL);
    Py_DECREF(who);
    return done;
}

/* Take a read of the client, or hand it on. */
static PyObject *lane_from_client(PyObject *object, PyObject *data)
{
    Lane *self = (Lane *)object;
    if (!self->owner) {
        PyErr_SetString(PyExc_RuntimeError, "the lane is not wired");
        return NULL;
    }
    PyObject *took = lane_client(object, &data, 1);
    int done = took == Py_True;
    Py_XDECREF(took);
    if (!done) return otherwise(self, self->otherwise_client, data);
    Ledger *ledger = self->ledger;
    int first = PyList_Size(ledger->held) == 0;
    Py_INCREF(data);
    self->held = data;
    if (PyList_Append(ledger->held, object) < 0) return NULL;
    return first ? PyObject_CallFunctionObjArgs(ledger->on_hold, NULL) : Py_NewRef(Py_None);
}

/* Take a read of the server, or hand it on. */
static PyObject *lane_from_server(PyObject *object, PyObject *data)
{
    Lane *self = (Lane *)object;
    if (!self->owner) {
        PyErr_SetString(PyExc_RuntimeError, "the lane is not wired");
        return NULL;
    }
    PyObject *took = lane_server(object, &data, 1);
    int done = took == Py_True;
    Py_XDECREF(took);
    if (done && ledger_later(self->ledger) == 0) return PyObject_CallFunctionObjArgs(self->to_client, data, NULL);
    return otherwise(self, self->otherwise_server, data);
}

/* Send what was held back: its line is written down. */
static PyObject *lane_forward(PyObject *object, PyObject *unused)
{
    Lane *self = (Lane *)object;
    (void)unused;
    PyObject *held = self->held;
    if (!held) Py_RETURN_NONE;
    self->held = NULL;
    PyObject *sent = PyObject_CallFunctionObjArgs(self->to_server, held, NULL);
    Py_DECREF(held);
    return sent;
}

/* Give back what is held back; None where nothing is. */
static PyObject *lane_unhold(PyObject *object, PyObject *unused)
{
    Lane *self = (Lane *)object;
    (void)unused;
    PyObject *held = self->held;
    self->held = NULL;
    return held ? held : Py_NewRef(Py_None);
}

/* Nothing of it goes to the server. */
static PyObject *lane_refuse(PyObject *object, PyObject *unused)
{
    Lane *self = (Lane *)object;
    (void)unused;
    if (!self->held) Py_RETURN_NONE;
    Py_CLEAR(self->held);
    return PyObject_CallMethod(self->owner, "refuse", NULL);
}

/* bar(whether): take nothing of the client, as something of it waits elsewhere. */
static PyObject *lane_bar(PyObject *object, PyObject *whether)
{
    int barred = PyObject_IsTrue(whether);
    if (barred < 0) return NULL;
    ((Lane *)object)->barred = barred;
    Py_RETURN_NONE;
}

static PyObject *lane_holding(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Lane *)object)->held != NULL);
}

static PyObject *lane_waiting(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Lane *)object)->way != NOTHING);
}

static PyObject *lane_engaged(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Lane *)object)->engaged);
}

static PyObject *lane_rows(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(((Lane *)object)->rows);
}

static PyObject *lane_last(PyObject *object, void *unused)
{
    Lane *self = (Lane *)object;
    (void)unused;
    if (!self->last) Py_RETURN_NONE;
    return Py_BuildValue("(OKK)", self->last, (unsigned long long)self->last_number, (unsigned long long)self->ended_ns);
}

/* -- the module -------------------------------------------------------------------------------------------------- */

static PyMethodDef ledger_methods[] = {
    {"add", ledger_add, METH_VARARGS, "Take lines, and how many of them begin a statement."},
    {"wire", ledger_wire, METH_VARARGS, "Tell somebody when a lane holds something back, and when lines wait."},
    {"release", ledger_release, METH_NOARGS, "Give the lanes that hold something back, and forget them."},
    {"take", ledger_take, METH_NOARGS, "Give what was taken, and how many of it begin a statement; nothing is left."},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot ledger_slots[] = {
    {Py_tp_dealloc, ledger_dealloc},
    {Py_tp_traverse, ledger_traverse},
    {Py_tp_clear, ledger_clear},
    {Py_tp_methods, ledger_methods},
    {Py_tp_new, PyType_GenericNew},
    {0, NULL},
};
static PyType_Spec ledger_spec = {
    "pgwitness_gateway.Ledger", sizeof(Ledger), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, ledger_slots};

static PyMethodDef lane_methods[] = {
    {"enter", lane_enter, METH_VARARGS, "Take statements from here on."},
    {"leave", lane_leave, METH_NOARGS, "Take none any more; give back what is under way."},
    {"wire", lane_wire, METH_VARARGS, "Say where reads go to, and who has those that are not taken."},
    {"from_client", lane_from_client, METH_O, "Take a read of the client, or hand it on."},
    {"from_server", lane_from_server, METH_O, "Take a read of the server, or hand it on."},
    {"forward", lane_forward, METH_NOARGS, "Send what is held back."},
    {"refuse", lane_refuse, METH_NOARGS, "Send nothing of what is held back, and end the session."},
    {"unhold", lane_unhold, METH_NOARGS, "Give back what is held back."},
    {"bar", lane_bar, METH_O, "Take nothing of the client, or do so again."},
    {"client", (PyCFunction)(void (*)(void))lane_client, METH_FASTCALL, "Take a read of the client."},
    {"server", (PyCFunction)(void (*)(void))lane_server, METH_FASTCALL, "Take a read of the server."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef lane_members[] = {
    {"holding", lane_holding, NULL, "Whether something is held back.", NULL},
    {"waiting", lane_waiting, NULL, "Whether something is under way.", NULL},
    {"engaged", lane_engaged, NULL, "Whether it takes statements.", NULL},
    {"last", lane_last, NULL, "What was answered last: its decision, number, and end.", NULL},
    {"rows", lane_rows, NULL, "Rows of all the answers that it has taken.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot lane_slots[] = {
    {Py_tp_init, lane_init},       {Py_tp_dealloc, lane_dealloc}, {Py_tp_traverse, lane_traverse},
    {Py_tp_clear, lane_clear},     {Py_tp_methods, lane_methods}, {Py_tp_getset, lane_members},
    {Py_tp_new, PyType_GenericNew}, {0, NULL},
};
static PyType_Spec lane_spec = {
    "pgwitness_gateway.Lane", sizeof(Lane), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, lane_slots};

static PyMethodDef functions[] = {
    {"shape", shape, METH_O, "Return a text without its literals; None where that is not certain."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "pgwitness_gateway", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_pgwitness_gateway(void)
{
    sorts();
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    PyObject *ledger = PyType_FromSpec(&ledger_spec), *lane = PyType_FromSpec(&lane_spec);
    s_statements = PyUnicode_InternFromString("statements");
    s_status = PyUnicode_InternFromString("status");
    s_transaction = PyUnicode_InternFromString("_transaction");
    s_epoch = PyUnicode_InternFromString("epoch");
    s_put = PyUnicode_InternFromString("put");
    s_clear = PyUnicode_InternFromString("clear");
    s_idle = PyUnicode_InternFromString("I");
    s_open = PyUnicode_InternFromString("T");
    ledger_type = (PyTypeObject *)ledger;
    if (!ledger || !lane || !s_open || !s_idle || !s_clear || !s_put || !s_epoch || !s_transaction || !s_status ||
        !s_statements || PyModule_AddObjectRef(module, "Ledger", ledger) < 0 ||
        PyModule_AddObjectRef(module, "Lane", lane) < 0 || PyModule_AddIntConstant(module, "version", 2) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    Py_XDECREF(lane);
    return module; /* `ledger` is kept: lanes are asked for one */
}
