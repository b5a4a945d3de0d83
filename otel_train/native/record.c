/* A session's clock and a ring's records: the twins are in step/clock.py and ring/writer.py. */
#include "record.h"

#include <stddef.h>
#include <time.h>

/* ring/file_format.py */
#define PROGRESS_OFFSET 128
#define HEADER_SIZE 256
#define ORDINAL 256 /* one, shifted by ORDINAL_SHIFT */

/* -- the clock ----------------------------------------------------------------------------------------------------- */

static int64_t nanoseconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

double steady_seconds(void)
{
    return (double)nanoseconds(CLOCK_MONOTONIC) / 1e9;
}

int64_t clock_stamp(Clock *clock, double now)
{
    int64_t time_ns = nanoseconds(CLOCK_REALTIME);
    double half_ns = (now - clock->stamped) * 5e8;
    if ((double)(int64_t)((uint64_t)time_ns - (uint64_t)clock->last_time_ns) <= half_ns) {
        int64_t later = half_ns >= 1.0 && half_ns < 9e18 ? (int64_t)half_ns : 1;
        time_ns = (int64_t)((uint64_t)clock->last_time_ns + (uint64_t)later);
    }
    clock->newest = clock->stamped = now;
    clock->last_time_ns = time_ns;
    return time_ns;
}

void clock_end_interval(Clock *clock, double now, int64_t step, double *out)
{
    int64_t steps = clock->last_step >= 0 ? step - clock->last_step : step <= 1;
    out[0] = steps ? now - clock->began : 0.0;
    out[1] = (double)steps;
    out[2] = steps ? clock->wait : 0.0;
    clock->began = now;
    clock->last_step = step;
    clock->wait = 0.0;
}

static void clock_dealloc(Clock *clock)
{
    PyTypeObject *type = Py_TYPE((PyObject *)clock);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(clock);
    Py_DECREF(type);
}

static PyMemberDef clock_members[] = {
    {"newest", T_DOUBLE, offsetof(Clock, newest), 0, NULL},
    {"began", T_DOUBLE, offsetof(Clock, began), 0, NULL},
    {"stamped", T_DOUBLE, offsetof(Clock, stamped), 0, NULL},
    {"wait", T_DOUBLE, offsetof(Clock, wait), 0, NULL},
    {"last_time_ns", T_LONGLONG, offsetof(Clock, last_time_ns), 0, NULL},
    {"last_step", T_LONGLONG, offsetof(Clock, last_step), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot clock_slots[] = {
    {Py_tp_dealloc, clock_dealloc},
    {Py_tp_members, clock_members},
    {0, NULL},
};

static PyType_Spec clock_spec = {
    .name = "otel_train.native._core.Clock",
    .basicsize = sizeof(Clock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = clock_slots,
};

/* -- the ring ------------------------------------------------------------------------------------------------------ */

Py_ssize_t ring_values(const Ring *ring)
{
    return ring->mapping.bytes == NULL ? -1 : (Py_ssize_t)(ring->body / 8 - RECORD_HEAD);
}

static uint8_t *next_record(const Ring *ring)
{
    int64_t at = (int64_t)((uint64_t)ring->written % (uint64_t)ring->records);
    return (uint8_t *)ring->mapping.bytes + ring->first + at * ring->size;
}

/* A reader in another process looks at this number first: all that was written before is there by then. */
static void publish(Ring *ring, int64_t written)
{
    ring->written = written;
    uint64_t *progress = (uint64_t *)((uint8_t *)ring->mapping.bytes + PROGRESS_OFFSET);
    __atomic_store_n(progress, (uint64_t)written, __ATOMIC_RELEASE);
}

void ring_prefetch(const Ring *ring)
{
    const uint8_t *record = next_record(ring);
    for (int64_t at = 0; at < ring->size; at += 64)
        __builtin_prefetch(record + at, 1);
    __builtin_prefetch((uint8_t *)ring->mapping.bytes + PROGRESS_OFFSET, 1);
}

void ring_mark(Ring *ring, int64_t step, int64_t time_ns)
{
    int64_t *progress = (int64_t *)((uint8_t *)ring->mapping.bytes + PROGRESS_OFFSET);
    ring->step = step;
    progress[1] = step;
    progress[2] = time_ns;
}

void ring_append(Ring *ring, int64_t step, int64_t time_ns, uint64_t kind, const double *values)
{
    uint8_t *record = next_record(ring);
    if (kind != KIND_RANK) {
        ring->numbered = (int64_t)((uint64_t)ring->numbered + ORDINAL);
        kind += (uint64_t)ring->numbered;
    }
    const uint64_t head[RECORD_HEAD] = {(uint64_t)ring->written, (uint64_t)step, (uint64_t)time_ns, kind};
    memcpy(record, head, sizeof head);
    memmove(record + sizeof head, values, (size_t)ring->body - sizeof head); /* they may be a part of the ring */
    uint64_t check = check_value(record, (size_t)ring->body);
    memcpy(record + ring->body, &check, sizeof check);
    publish(ring, (int64_t)((uint64_t)ring->written + 1));
    if (step > ring->step) /* else the cluster's values of a step came back when the rank is at a later one */
        ring_mark(ring, step, time_ns);
}

static PyObject *bind(Ring *ring, PyObject *args)
{
    PyObject *mapping;
    long long first, size, records, body;
    if (!PyArg_ParseTuple(args, "OLLLL", &mapping, &first, &size, &records, &body))
        return NULL;
    bool fits = first >= HEADER_SIZE && first % 8 == 0 && size % 8 == 0 && body % 8 == 0 && records >= 1 &&
                body >= 8 * RECORD_HEAD && body < size && first < (1LL << 40) && size < (1LL << 40) &&
                records <= (1LL << 40) / size;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "the ring's sizes do not fit together");
        return NULL;
    }
    if (numbers_take(&ring->mapping, mapping, 'B', (Py_ssize_t)(first + size * records)) < 0)
        return NULL;
    ring->first = first;
    ring->size = size;
    ring->records = records;
    ring->body = body;
    Py_RETURN_NONE;
}

static PyObject *unbind(Ring *ring, PyObject *ignored)
{
    (void)ignored;
    numbers_release(&ring->mapping);
    Py_RETURN_NONE;
}

/* Copy a sequence's numbers; -1 with an error set where it has others, or as many as are not wanted. */
static int copy_sequence(PyObject *sequence, double *values, Py_ssize_t count)
{
    PyObject *fast = PySequence_Fast(sequence, "values must be a sequence");
    if (fast == NULL)
        return -1;
    bool fits = PySequence_Size(fast) == count;
    if (!fits)
        PyErr_Format(PyExc_ValueError, "must be %zd values", count);
    for (Py_ssize_t i = 0; fits && i < count; i++) {
        PyObject *number = PySequence_GetItem(fast, i);
        fits = number != NULL;
        if (fits) {
            values[i] = PyFloat_AsDouble(number);
            fits = values[i] != -1.0 || PyErr_Occurred() == NULL;
            Py_DECREF(number);
        }
    }
    Py_DECREF(fast);
    return fits ? 0 : -1;
}

static PyObject *append(Ring *ring, PyObject *args)
{
    long long step, time_ns, kind;
    PyObject *values;
    if (!PyArg_ParseTuple(args, "LLLO", &step, &time_ns, &kind, &values))
        return NULL;
    Py_ssize_t count = ring_values(ring);
    if (count < 0) {
        PyErr_SetString(PyExc_ValueError, "the ring was released");
        return NULL;
    }
    PyObject *scratch = NULL;
    Py_buffer view = {0};
    const double *numbers = NULL;
    if (PyObject_CheckBuffer(values)) {
        if (PyObject_GetBuffer(values, &view, PyBUF_FORMAT | PyBUF_ND) < 0)
            return NULL;
        if (view.format != NULL && strcmp(view.format, "d") == 0 && view.len == count * (Py_ssize_t)sizeof(double))
            numbers = view.buf;
        else
            PyErr_Format(PyExc_ValueError, "must be %zd values of float64", count);
    } else {
        scratch = PyByteArray_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(double));
        if (scratch != NULL && copy_sequence(values, (double *)PyByteArray_AsString(scratch), count) == 0)
            numbers = (double *)PyByteArray_AsString(scratch);
    }
    /* Its numbers' own methods may have released it meanwhile. */
    if (numbers != NULL && ring_values(ring) == count)
        ring_append(ring, step, time_ns, (uint64_t)kind, numbers);
    else if (PyErr_Occurred() == NULL)
        PyErr_SetString(PyExc_ValueError, "the ring was released");
    if (view.obj != NULL)
        PyBuffer_Release(&view);
    Py_XDECREF(scratch);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static void ring_dealloc(Ring *ring)
{
    PyTypeObject *type = Py_TYPE((PyObject *)ring);
    numbers_release(&ring->mapping);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(ring);
    Py_DECREF(type);
}

static PyMethodDef ring_methods[] = {
    {"append", (PyCFunction)append, METH_VARARGS,
     "append($self, step, time_ns, kind, values, /)\n--\n\nAppend a record."},
    {"bind", (PyCFunction)bind, METH_VARARGS, NULL},
    {"unbind", (PyCFunction)unbind, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef ring_members[] = {
    {"written", T_LONGLONG, offsetof(Ring, written), 0, NULL},
    {"step", T_LONGLONG, offsetof(Ring, step), 0, NULL},
    {"numbered", T_LONGLONG, offsetof(Ring, numbered), 0, NULL},
    {"writing", T_BOOL, offsetof(Ring, writing), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_methods, ring_methods},
    {Py_tp_members, ring_members},
    {0, NULL},
};

static PyType_Spec ring_spec = {
    .name = "otel_train.native._core.Ring",
    .basicsize = sizeof(Ring),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = ring_slots,
};

int add_record(PyObject *module, Types *types)
{
    if (add_type(module, &clock_spec, &types->clock) < 0)
        return -1;
    return add_type(module, &ring_spec, &types->ring);
}
