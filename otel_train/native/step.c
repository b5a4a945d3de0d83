/* A session's step: the twins are Telemetry.step, Recording.step and Recorder.complete in step/.
 *
 * A step that is like nearly all of them is done here, from the user's call to the record in the ring. Whatever else it
 * is (a value on a GPU, a key that came late, a step that is given again), the call or the rest of it goes to Python.
 */
#include "core.h"
#include "interval.h"
#include "meter.h"
#include "record.h"

#include <stddef.h>

#define LARGEST_STEP (1LL << 53)
#define STEP_NAMES 2

typedef struct {
    PyObject_HEAD
    char plain, open, logs, strides, alone;
    unsigned long busy; /* thread that makes a step; 0 while none does */
    bool ends; /* whether all is to be let go after it */
    int64_t given, last_step, stride, every, newest_step, newest_ns;
    Interval *interval;
    Clock *clock;
    Ring *ring;
    Picks *picks; /* the only source's; NULL where the sources are Python's */
    PyObject *recording, *recorder, *row, *twin;
    PyObject *names[STEP_NAMES]; /* of the arguments of a step */
} Steps;

/* Let go of all but the twin: who has kept `telemetry.step` hears from it that the session has ended. */
static void steps_release(Steps *steps)
{
    steps->plain = 0;
    steps->ends = false;
    Py_CLEAR(steps->interval);
    Py_CLEAR(steps->clock);
    Py_CLEAR(steps->ring);
    Py_CLEAR(steps->picks);
    Py_CLEAR(steps->recording);
    Py_CLEAR(steps->recorder);
    Py_CLEAR(steps->row);
}

/* Recording.ends_interval. */
static bool ends_interval(Steps *steps, int64_t step)
{
    if (steps->every <= 1)
        return true;
    if (steps->last_step >= 0) {
        int64_t apart = (int64_t)((uint64_t)step - (uint64_t)steps->last_step);
        steps->stride = steps->strides && steps->stride < apart ? steps->stride : apart;
        steps->strides = 1;
    }
    int64_t before = (int64_t)((uint64_t)step - (uint64_t)steps->stride), whole = before / steps->every;
    if (before % steps->every < 0) /* as Python's division */
        whole--;
    return step / steps->every != whole;
}

/* Have the processor fetch what the step is about to touch, all at once. */
static void prefetch(const Steps *steps)
{
    ring_prefetch(steps->ring);
    __builtin_prefetch(steps->clock, 1);
    interval_prefetch(steps->interval);
    if (steps->picks != NULL)
        picks_prefetch(steps->picks);
}

/* End the sources' interval; false with an error set where that is not possible. */
static bool measure(Steps *steps, int64_t step, PyObject *number)
{
    Interval *interval = steps->interval;
    Py_ssize_t wanted = source_values(interval);
    if (steps->picks != NULL && picks_size(steps->picks) == wanted) {
        picks_drain(steps->picks, step, interval->flat.doubles);
        return true;
    }
    PyObject *values = PyObject_CallMethod(steps->recorder, "measure", "O", number);
    if (values == NULL)
        return false;
    bool fits = PyList_Check(values) && PyList_Size(values) == wanted;
    for (Py_ssize_t i = 0; fits && i < wanted; i++) {
        PyObject *item = PySequence_GetItem(values, i);
        double value = item == NULL ? -1.0 : PyFloat_AsDouble(item);
        Py_XDECREF(item);
        /* Its own code may have run. */
        fits = (value != -1.0 || PyErr_Occurred() == NULL) && source_values(interval) == wanted;
        if (fits)
            interval->flat.doubles[i] = value;
    }
    Py_DECREF(values);
    if (!fits && PyErr_Occurred() == NULL)
        PyErr_SetString(PyExc_AssertionError, "a source of ours has another layout than its metrics");
    return fits;
}

/* A step that is not a log step. */
static bool end_step(Steps *steps, int64_t step, int64_t time_ns, PyObject *number)
{
    if (steps->picks != NULL) {
        picks_end_step(steps->picks, step);
    } else {
        PyObject *ended = PyObject_CallMethod(steps->recorder, "end_step", "O", number);
        if (ended == NULL)
            return false;
        Py_DECREF(ended);
    }
    if (ring_values(steps->ring) < 0)
        return true; /* a source has ended the session */
    ring_mark(steps->ring, step, time_ns);
    return true;
}

/* Record a row whose sources have added, as they were drained, what only Python takes: it belongs to this row. */
static bool emit_measured(Steps *steps, int64_t time_ns, double now, PyObject *number)
{
    PyObject *measured = list_of(steps->interval->flat.doubles, source_values(steps->interval));
    if (measured == NULL)
        return false;
    PyObject *emitted = PyObject_CallMethod(steps->recording, "emit_measured", "OLOd", number, (long long)time_ns,
                                            measured, now);
    Py_DECREF(measured);
    Py_XDECREF(emitted);
    return emitted != NULL;
}

/* Measure, complete and record a row. */
static bool record_row(Steps *steps, int64_t step, int64_t time_ns, double now, PyObject *number)
{
    Interval *interval = steps->interval;
    if (!measure(steps, step, number))
        return false;
    if (interval->means == NULL || ring_values(steps->ring) != interval->row.count) {
        PyErr_SetString(PyExc_ValueError, "the session has ended");
        return false;
    }
    if (interval->late || interval->on_device)
        return emit_measured(steps, time_ns, now, number);
    clock_end_interval(steps->clock, now, step, interval->flat.doubles + source_values(interval));
    complete_row(interval);
    steps->open = 0;
    if (steps->alone && !steps->ring->writing) {
        ring_append(steps->ring, step, time_ns, KIND_BOTH, interval->row.doubles);
        steps->newest_step = step;
        steps->newest_ns = time_ns;
        return true;
    }
    PyObject *emitted =
        PyObject_CallMethod(steps->recording, "emit_values", "OLO", number, (long long)time_ns, steps->row);
    Py_XDECREF(emitted);
    return emitted != NULL;
}

/* The failure contract: nothing of ours raises into the training loop. */
static PyObject *leave_out(Steps *steps, PyObject *number, double now)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    PyObject *result = PyObject_CallMethod(steps->recording, "leave_out", "OdO", number, now, error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
    return result;
}

/* What follows once it is certain that the step is one of those that are done here. */
static PyObject *make_step(Steps *steps, PyObject *given, int64_t number, PyObject *scalars)
{
    prefetch(steps);
    double now = steady_seconds();
    Interval *interval = steps->interval;
    steps->logs = ends_interval(steps, number);
    steps->given = steps->last_step = number;
    if (scalars != Py_None && !add_scalars(interval, scalars)) {
        PyObject *added = PyObject_CallMethod(steps->recorder, "add", "O", scalars);
        if (added == NULL)
            return leave_out(steps, given, now);
        Py_DECREF(added);
    }
    if (interval->late || interval->on_device)
        return PyObject_CallMethod(steps->recording, "finish", "Od", given, now);
    int64_t time_ns = clock_stamp(steps->clock, now);
    bool recorded =
        steps->logs ? record_row(steps, number, time_ns, now, given) : end_step(steps, number, time_ns, given);
    if (!recorded)
        return leave_out(steps, given, now);
    Py_RETURN_NONE;
}

/* Read (step, extra_metrics=None); false where Python is to look at them. */
static bool read_step(Steps *steps, PyObject *const *args, Py_ssize_t count, PyObject *names, PyObject **given)
{
    if (count > STEP_NAMES)
        return false;
    for (Py_ssize_t i = 0; i < count; i++)
        given[i] = args[i];
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    for (Py_ssize_t i = 0; i < named; i++) {
        Py_ssize_t at = name_at(PyTuple_GetItem(names, i), steps->names, STEP_NAMES);
        if (at < 0 || given[at] != NULL)
            return false;
        given[at] = args[count + i];
    }
    return given[0] != NULL;
}

static PyObject *step(Steps *steps, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    int64_t number = -1;
    PyObject *given[STEP_NAMES] = {NULL, NULL};
    bool plain = steps->plain && !steps->busy && read_step(steps, args, count, names, given);
    PyObject *scalars = given[1] == NULL ? Py_None : given[1];
    plain = plain && whole(given[0], &number) && number >= 0 && number > steps->given && number <= LARGEST_STEP &&
            (scalars == Py_None || PyDict_CheckExact(scalars)) && steps->interval != NULL &&
            steps->interval->means != NULL && ring_values(steps->ring) == steps->interval->row.count;
    if (plain) {
        steps->busy = PyThread_get_thread_ident(); /* whatever of the user's runs meanwhile: what is bound stays */
        PyObject *result = make_step(steps, given[0], number, scalars);
        steps->busy = 0;
        if (steps->ends)
            steps_release(steps);
        return result;
    }
    if (steps->twin != NULL)
        return call_twin(steps->twin, NULL, args, count, names);
    PyErr_SetString(PyExc_RuntimeError, "nothing makes these steps yet");
    return NULL;
}

static PyObject *steps_bind(Steps *steps, PyTypeObject *owner, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Types *types = PyType_GetModuleState(owner);
    if (types == NULL || names != NULL || count != 8) {
        PyErr_SetString(PyExc_TypeError, "bind() takes recording, recorder, interval, clock, ring, picks, row, twin");
        return NULL;
    }
    Interval *interval = checked(args[2], types->interval);
    Clock *clock = interval == NULL ? NULL : checked(args[3], types->clock);
    Ring *ring = clock == NULL ? NULL : checked(args[4], types->ring);
    Picks *picks = ring == NULL || args[5] == Py_None ? NULL : checked(args[5], types->picks);
    if (ring == NULL || (picks == NULL && args[5] != Py_None))
        return NULL;
    if (interval->means == NULL || ring_values(ring) != interval->row.count || steps->every < 1) {
        PyErr_SetString(PyExc_ValueError, "the ring's records are of another schema, or arrays lack");
        return NULL;
    }
    if (steps->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a step is being made");
        return NULL;
    }
    static const char *const step_names[STEP_NAMES] = {"step", "extra_metrics"};
    if (!intern_names(steps->names, step_names, STEP_NAMES))
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        Py_INCREF(args[i]);
    if (picks == NULL)
        Py_DECREF(args[5]);
    steps_release(steps);
    PyObject *before = steps->twin;
    steps->recording = args[0];
    steps->recorder = args[1];
    steps->interval = interval;
    steps->clock = clock;
    steps->ring = ring;
    steps->picks = picks;
    steps->row = args[6];
    steps->twin = args[7];
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

static PyObject *steps_unbind(Steps *steps, PyObject *ignored)
{
    (void)ignored;
    steps->plain = 0;
    steps->ends = true;
    if (!steps->busy)
        steps_release(steps);
    Py_RETURN_NONE;
}

static int steps_traverse(Steps *steps, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)steps));
    Py_VISIT((PyObject *)steps->interval);
    Py_VISIT((PyObject *)steps->clock);
    Py_VISIT((PyObject *)steps->ring);
    Py_VISIT((PyObject *)steps->picks);
    Py_VISIT(steps->recording);
    Py_VISIT(steps->recorder);
    Py_VISIT(steps->row);
    Py_VISIT(steps->twin);
    return 0;
}

static int steps_clear(Steps *steps)
{
    steps_release(steps);
    Py_CLEAR(steps->twin);
    return 0;
}

static void steps_dealloc(Steps *steps)
{
    PyTypeObject *type = Py_TYPE((PyObject *)steps);
    PyObject_GC_UnTrack(steps);
    steps_clear(steps);
    for (int i = 0; i < STEP_NAMES; i++)
        Py_CLEAR(steps->names[i]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(steps);
    Py_DECREF(type);
}

static PyMethodDef steps_methods[] = {
    {"step", (PyCFunction)(void (*)(void))step, METH_FASTCALL | METH_KEYWORDS,
     "step($self, /, step, extra_metrics=None, *, by=None)\n--\n\nNote the end of a step; see Telemetry.step."},
    {"bind", (PyCFunction)(void (*)(void))steps_bind, METH_METHOD | METH_FASTCALL | METH_KEYWORDS, NULL},
    {"unbind", (PyCFunction)steps_unbind, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef steps_members[] = {
    {"plain", T_BOOL, offsetof(Steps, plain), 0, NULL},
    {"open", T_BOOL, offsetof(Steps, open), 0, NULL},
    {"logs", T_BOOL, offsetof(Steps, logs), 0, NULL},
    {"strides", T_BOOL, offsetof(Steps, strides), 0, NULL},
    {"alone", T_BOOL, offsetof(Steps, alone), 0, NULL},
    {"busy", T_ULONG, offsetof(Steps, busy), READONLY, NULL},
    {"given", T_LONGLONG, offsetof(Steps, given), 0, NULL},
    {"last_step", T_LONGLONG, offsetof(Steps, last_step), 0, NULL},
    {"stride", T_LONGLONG, offsetof(Steps, stride), 0, NULL},
    {"every", T_LONGLONG, offsetof(Steps, every), 0, NULL},
    {"newest_step", T_LONGLONG, offsetof(Steps, newest_step), 0, NULL},
    {"newest_ns", T_LONGLONG, offsetof(Steps, newest_ns), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot steps_slots[] = {
    {Py_tp_dealloc, steps_dealloc}, {Py_tp_traverse, steps_traverse}, {Py_tp_clear, steps_clear},
    {Py_tp_methods, steps_methods}, {Py_tp_members, steps_members},   {0, NULL},
};

static PyType_Spec steps_spec = {
    .name = "otel_train.native._core.Steps",
    .basicsize = sizeof(Steps),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = steps_slots,
};

int add_step(PyObject *module, Types *types)
{
    (void)types;
    return add_type(module, &steps_spec, NULL);
}
