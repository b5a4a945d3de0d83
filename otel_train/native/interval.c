/* What a rank measures in an interval: the twins are in step/recorder.py and step/scalar_recorder.py. */
#include "interval.h"

#include <math.h>
#include <stddef.h>

#define LARGEST (1LL << 53) /* a float64 holds every whole number up to here */
#define MOST_SCALARS 32     /* of a step that is done here */
#define BESIDE 6            /* values between the sources' and the scalars': length, steps, wait, 1, dropped, a zero */

typedef struct {
    int64_t offset;
    bool is_mean;
    double value;
} Scalar;

static void interval_release(Interval *interval)
{
    Py_CLEAR(interval->means);
    Py_CLEAR(interval->totals);
    Numbers *all[] = {&interval->sums,  &interval->peaks, &interval->empty,
                      &interval->order, &interval->flat,  &interval->row};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        numbers_release(all[i]);
    for (int i = 0; i < RECENT; i++)
        Py_CLEAR(interval->recent[i].key);
}

Py_ssize_t source_values(const Interval *interval)
{
    return interval->flat.count - BESIDE - interval->sums.count - interval->peaks.count;
}

/* Look up a key's offset; false where it has none here. */
static bool find_key(Interval *interval, PyObject *key, Py_ssize_t at, Scalar *scalar)
{
    if (at < RECENT && interval->recent[at].key == key) {
        scalar->offset = interval->recent[at].offset;
        scalar->is_mean = interval->recent[at].is_mean;
        return true;
    }
    if (!PyUnicode_CheckExact(key))
        return false;
    PyObject *offset = PyDict_GetItemWithError(interval->means, key);
    scalar->is_mean = offset != NULL;
    if (offset == NULL)
        offset = PyDict_GetItemWithError(interval->totals, key);
    scalar->offset = offset == NULL ? -1 : PyLong_AsLongLong(offset);
    if (scalar->offset < 0 || scalar->offset + scalar->is_mean >= interval->sums.count) {
        PyErr_Clear();
        return false;
    }
    if (at < RECENT) {
        PyObject *before = interval->recent[at].key;
        Py_INCREF(key);
        interval->recent[at].key = key;
        interval->recent[at].offset = scalar->offset;
        interval->recent[at].is_mean = scalar->is_mean;
        Py_XDECREF(before);
    }
    return true;
}

/* Read a float, or an int that one holds exactly; false for anything else. */
static bool read_value(PyObject *value, double *number)
{
    if (PyFloat_CheckExact(value)) {
        *number = PyFloat_AsDouble(value);
        return true;
    }
    int64_t count;
    if (!whole(value, &count))
        return false;
    *number = (double)count;
    return count >= -LARGEST && count <= LARGEST;
}

bool add_scalars(Interval *interval, PyObject *scalars)
{
    Scalar read[MOST_SCALARS];
    PyObject *key, *value;
    Py_ssize_t position = 0, count = 0;
    while (PyDict_Next(scalars, &position, &key, &value)) {
        bool reads = count < MOST_SCALARS && read_value(value, &read[count].value);
        if (!reads || !find_key(interval, key, count, &read[count]))
            return false;
        count++;
    }
    double *sums = interval->sums.doubles;
    for (Py_ssize_t i = 0; i < count; i++) {
        /* A weight of 1 changes nothing. Of a sum minus zero is a value, but the sum of those alone would be none. */
        sums[read[i].offset] += read[i].is_mean ? read[i].value : read[i].value + 0.0;
        if (read[i].is_mean)
            sums[read[i].offset + 1] += 1.0;
    }
    return true;
}

void complete_row(Interval *interval)
{
    double *flat = interval->flat.doubles, *beside = flat + source_values(interval);
    Py_ssize_t sums = interval->sums.count, peaks = interval->peaks.count;
    beside[3] = 1.0;
    beside[4] = interval->dropped;
    beside[5] = 0.0;
    interval->dropped = 0.0;
    memmove(beside + BESIDE, interval->sums.doubles, (size_t)sums * sizeof(double));
    memmove(beside + BESIDE + sums, interval->peaks.doubles, (size_t)peaks * sizeof(double));
    memmove(interval->sums.doubles, interval->empty.doubles, (size_t)sums * sizeof(double));
    for (Py_ssize_t i = 0; i < peaks; i++)
        interval->peaks.doubles[i] = -INFINITY;
    for (Py_ssize_t i = 0; i < interval->row.count; i++) {
        uint64_t at = (uint64_t)interval->order.longs[i]; /* Python's: it was in bounds when it was bound */
        interval->row.doubles[i] = at < (uint64_t)interval->flat.count ? flat[at] : NAN;
    }
}

/* A look-up must not run code of a key's own. */
static bool plain_keys(PyObject *offsets)
{
    PyObject *key, *offset;
    Py_ssize_t position = 0;
    while (PyDict_Next(offsets, &position, &key, &offset))
        if (!PyUnicode_CheckExact(key) || !PyLong_CheckExact(offset))
            return false;
    return true;
}

void interval_prefetch(const Interval *interval)
{
    __builtin_prefetch(interval, 1);
    __builtin_prefetch((const char *)interval + 64);
    __builtin_prefetch(interval->sums.doubles, 1);
    const Numbers *rows[] = {&interval->flat, &interval->row, &interval->order};
    for (int i = 0; i < 3; i++)
        for (Py_ssize_t at = 0; at < rows[i]->count; at += 8)
            __builtin_prefetch(rows[i]->doubles + at);
}

static bool in_bounds(const Interval *interval)
{
    if (interval->sums.count != interval->empty.count || source_values(interval) < 0)
        return false;
    for (Py_ssize_t i = 0; i < interval->order.count; i++)
        if (interval->order.longs[i] < 0 || interval->order.longs[i] >= interval->flat.count)
            return false;
    return true;
}

static PyObject *interval_bind(Interval *interval, PyObject *args)
{
    PyObject *means, *totals, *sums, *peaks, *empty, *order, *flat, *row;
    if (!PyArg_ParseTuple(args, "O!O!OOOOOO", &PyDict_Type, &means, &PyDict_Type, &totals, &sums, &peaks, &empty,
                          &order, &flat, &row))
        return NULL;
    interval_release(interval);
    if (numbers_take(&interval->sums, sums, 'd', 0) < 0 || numbers_take(&interval->peaks, peaks, 'd', 0) < 0 ||
        numbers_take(&interval->empty, empty, 'd', 0) < 0 || numbers_take(&interval->order, order, 'q', 0) < 0 ||
        numbers_take(&interval->flat, flat, 'd', BESIDE) < 0 ||
        numbers_take(&interval->row, row, 'd', interval->order.count) < 0)
        goto failed;
    bool fits = interval->row.count == interval->order.count && in_bounds(interval);
    if (!fits || !plain_keys(means) || !plain_keys(totals)) {
        PyErr_SetString(PyExc_ValueError, "an interval's arrays do not fit together");
        goto failed;
    }
    Py_INCREF(means);
    Py_INCREF(totals);
    interval->means = means;
    interval->totals = totals;
    Py_RETURN_NONE;
failed:
    interval_release(interval);
    return NULL;
}

static int interval_traverse(Interval *interval, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)interval));
    Py_VISIT(interval->means);
    Py_VISIT(interval->totals);
    return 0;
}

static int interval_clear(Interval *interval)
{
    interval_release(interval);
    return 0;
}

static void interval_dealloc(Interval *interval)
{
    PyTypeObject *type = Py_TYPE((PyObject *)interval);
    PyObject_GC_UnTrack(interval);
    interval_release(interval);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(interval);
    Py_DECREF(type);
}

static PyMethodDef interval_methods[] = {
    {"bind", (PyCFunction)interval_bind, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef interval_members[] = {
    {"dropped", T_DOUBLE, offsetof(Interval, dropped), 0, NULL},
    {"late", T_BOOL, offsetof(Interval, late), 0, NULL},
    {"on_device", T_BOOL, offsetof(Interval, on_device), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot interval_slots[] = {
    {Py_tp_dealloc, interval_dealloc}, {Py_tp_traverse, interval_traverse}, {Py_tp_clear, interval_clear},
    {Py_tp_methods, interval_methods}, {Py_tp_members, interval_members},   {0, NULL},
};

static PyType_Spec interval_spec = {
    .name = "otel_train.native._core.IntervalState",
    .basicsize = sizeof(Interval),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = interval_slots,
};

int add_interval(PyObject *module, Types *types)
{
    return add_type(module, &interval_spec, &types->interval);
}
