/* The packed vector of a reduction: filled, judged and read. The twins, and what its parts mean, are in step/packing.py
 * and step/late_packing.py. */
#include "core.h"

#define HEADER 4
#define PRIME 2147483647 /* 2**31 - 1 */
#define LATE_WIDTH 2     /* numbers of a late key: total and weight */
#define BLOCK 16         /* candidates that are looked at together */

/* Offsets and sizes are in float64. */
typedef struct {
    PyObject_HEAD
    Py_ssize_t sums, peaks, ranks;
    Py_ssize_t slots, signs, late, size; /* where the peaks, the signs and the late part begin; the whole */
} Packing;

/* Two candidates, which may begin at any of them. */
typedef double Pair __attribute__((vector_size(16), aligned(8), may_alias));
typedef int64_t Odd __attribute__((vector_size(16)));

/* -- arguments -------------------------------------------------------------------------------------------------- */

/* Read a float or an int; false, with no error set, where it is neither. */
static bool number_read(PyObject *given, double *number)
{
    if (given != NULL && PyFloat_CheckExact(given)) {
        *number = PyFloat_AsDouble(given);
        return true;
    }
    if (given == NULL || !PyLong_CheckExact(given)) {
        PyErr_Clear();
        return false;
    }
    *number = PyLong_AsDouble(given);
    if (*number != -1.0 || !PyErr_Occurred())
        return true;
    PyErr_Clear(); /* too large */
    return false;
}

/* The step's square modulo a prime, as Python's % has it: not negative. */
static double square(int64_t step)
{
    int64_t rest = step % PRIME;
    return (double)(rest * rest % PRIME);
}

/* -- packing ---------------------------------------------------------------------------------------------------- */

/* Write a rank's sums, and its peaks into its own slots; false, with no error set, where the twin is to do it. */
static bool values_put(const Packing *packing, double *vector, PyObject *values, Py_ssize_t rank)
{
    double *sums = vector + HEADER, *slots = vector + packing->slots + rank;
    Py_ssize_t count = packing->sums + packing->peaks;
    bool is_list = PyList_CheckExact(values);
    if (is_list || PyTuple_CheckExact(values)) {
        if ((is_list ? PyList_Size(values) : PyTuple_Size(values)) < count)
            return false;
        for (Py_ssize_t i = 0; i < count; i++) {
            double *out = i < packing->sums ? sums + i : slots + (i - packing->sums) * packing->ranks;
            if (!number_read(is_list ? PyList_GetItem(values, i) : PyTuple_GetItem(values, i), out))
                return false;
        }
        return true;
    }
    Py_buffer view;
    if (!PyObject_CheckBuffer(values) || PyObject_GetBuffer(values, &view, PyBUF_FORMAT | PyBUF_ND) < 0) {
        PyErr_Clear();
        return false;
    }
    bool fits = view.format != NULL && strcmp(view.format, "d") == 0 && view.ndim == 1 &&
                view.len / (Py_ssize_t)sizeof(double) >= count;
    if (fits) {
        const char *bytes = view.buf; /* moved: a slice of somebody's bytes may begin anywhere, also in the vector */
        memmove(sums, bytes, (size_t)packing->sums * sizeof(double));
        for (Py_ssize_t i = 0; i < packing->peaks; i++)
            memmove(slots + i * packing->ranks, bytes + (packing->sums + i) * 8, sizeof(double));
    }
    PyBuffer_Release(&view);
    return fits;
}

/* Zero a vector; the late part only where a rank has filled it: what no rank has filled is still zero after the sum. Of
 * a rank's own vector all but the late part is zero, or is packed anew. */
static void vector_clear(const Packing *packing, double *vector, bool own)
{
    bool late = packing->size > packing->late && vector[packing->late] != 0.0;
    Py_ssize_t begin = own ? packing->late : 0, end = late ? packing->size : packing->late;
    memset(vector + begin, 0, (size_t)(end - begin) * sizeof(double));
}

/* pack(vector, step, values, rank, own): false where the twin is to do it. */
static PyObject *packing_pack(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    const Packing *packing = (const Packing *)self;
    Numbers taken = {0};
    int64_t step;
    if (check_count(count, 5, "pack") < 0)
        return NULL;
    Py_ssize_t rank = PyLong_AsSsize_t(args[3]);
    int own = PyObject_IsTrue(args[4]);
    if ((rank == -1 && PyErr_Occurred()) || own < 0)
        return NULL;
    if (rank < 0 || rank >= packing->ranks || !whole(args[1], &step))
        Py_RETURN_FALSE;
    if (numbers_take(&taken, args[0], 'd', packing->size) < 0)
        return NULL;
    double *vector = taken.doubles;
    vector_clear(packing, vector, own);
    bool done = values_put(packing, vector, args[2], rank);
    if (done) {
        vector[0] = 1.0;
        vector[1] = (double)step;
        vector[2] = square(step);
        vector[3] = 0.0;
        vector[packing->signs + rank] = (double)step + 1.0;
    }
    numbers_release(&taken);
    return PyBool_FromLong(done);
}

/* -- reading ---------------------------------------------------------------------------------------------------- */

/* everybody(vector, step): None, here and below, where the step is left to the twin. */
static PyObject *packing_everybody(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    const Packing *packing = (const Packing *)self;
    Numbers taken = {0};
    int64_t step;
    if (check_count(count, 2, "everybody") < 0)
        return NULL;
    if (!whole(args[1], &step))
        Py_RETURN_NONE;
    if (numbers_take(&taken, args[0], 'd', packing->size) < 0)
        return NULL;
    const double *header = taken.doubles;
    double ranks = (double)packing->ranks;
    bool all = header[0] == ranks && header[1] == (double)step * ranks && header[2] == square(step) * ranks &&
               header[3] == 0.0;
    numbers_release(&taken);
    return PyBool_FromLong(all);
}

/* Return the lowest rank that has the maximum of its candidates; of one that has a NaN, the lowest. */
static Py_ssize_t highest(const double *candidates, Py_ssize_t ranks)
{
    Py_ssize_t at = 0, next = 1;
    double top = candidates[0];
    while (next < ranks && top == top) {
        if (ranks - next >= BLOCK) {
            /* Whether one of the block is larger than the top, or a NaN: few blocks have such a one. */
            const Pair tops = {top, top}, *pairs = (const Pair *)(candidates + next);
            Odd small = (pairs[0] <= tops) & (pairs[1] <= tops) & (pairs[2] <= tops) & (pairs[3] <= tops) &
                        (pairs[4] <= tops) & (pairs[5] <= tops) & (pairs[6] <= tops) & (pairs[7] <= tops);
            if (small[0] & small[1]) {
                next += BLOCK;
                continue;
            }
        }
        if (!(candidates[next] <= top)) {
            top = candidates[next];
            at = next;
        }
        next++;
    }
    return at;
}

/* unpack(vector, step, out): false where it has no values, or some of another step. */
static PyObject *packing_unpack(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    const Packing *packing = (const Packing *)self;
    Numbers taken = {0}, out = {0};
    PyObject *result = NULL;
    int64_t step;
    if (check_count(count, 3, "unpack") < 0)
        return NULL;
    if (!whole(args[1], &step))
        Py_RETURN_NONE;
    if (numbers_take(&taken, args[0], 'd', packing->size) < 0 ||
        numbers_take(&out, args[2], 'd', packing->sums + 2 * packing->peaks) < 0)
        goto done;
    const double *vector = taken.doubles;
    bool has = vector[0] != 0.0 && vector[1] == (double)step * vector[0] && vector[2] == square(step) * vector[0];
    if (has) {
        memmove(out.doubles, vector + HEADER, (size_t)packing->sums * sizeof(double));
        for (Py_ssize_t i = 0; i < packing->peaks; i++) {
            const double *candidates = vector + packing->slots + i * packing->ranks;
            Py_ssize_t rank = highest(candidates, packing->ranks);
            out.doubles[packing->sums + i] = candidates[rank];
            out.doubles[packing->sums + packing->peaks + i] = (double)rank;
        }
    }
    result = PyBool_FromLong(has);
done:
    numbers_release(&out);
    numbers_release(&taken);
    return result;
}

/* Append what is made of a format to a list; -1 with an error set where it can't. */
static int append(PyObject *list, PyObject *made)
{
    int failed = made == NULL ? -1 : PyList_Append(list, made);
    Py_XDECREF(made);
    return failed;
}

/* others(vector, step): the rank and the sign of each that has no values of the step. */
static PyObject *packing_others(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    const Packing *packing = (const Packing *)self;
    Numbers taken = {0};
    int64_t step;
    if (check_count(count, 2, "others") < 0)
        return NULL;
    if (!whole(args[1], &step))
        Py_RETURN_NONE;
    if (numbers_take(&taken, args[0], 'd', packing->size) < 0)
        return NULL;
    PyObject *others = PyList_New(0);
    for (Py_ssize_t rank = 0; others != NULL && rank < packing->ranks; rank++) {
        double sign = taken.doubles[packing->signs + rank];
        if (sign != (double)step + 1.0 && append(others, Py_BuildValue("(nd)", rank, sign)) < 0)
            Py_CLEAR(others);
    }
    numbers_release(&taken);
    return others;
}

/* late_slots(vector, begin, keys): number, total and weight of each late key at an offset that has a weight. */
static PyObject *late_slots(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Numbers vector = {0};
    if (check_count(count, 3, "late_slots") < 0)
        return NULL;
    Py_ssize_t begin = PyLong_AsSsize_t(args[1]), keys = PyLong_AsSsize_t(args[2]);
    if (PyErr_Occurred() || numbers_take(&vector, args[0], 'd', 0) < 0)
        return NULL;
    PyObject *slots = NULL;
    if (begin < 0 || begin > vector.count || keys < 0 || keys > (vector.count - begin) / LATE_WIDTH)
        PyErr_Format(PyExc_ValueError, "%zd late keys at %zd are not in a vector of %zd", keys, begin, vector.count);
    else
        slots = PyList_New(0);
    for (Py_ssize_t key = 0; slots != NULL && key < keys; key++) {
        const double *late = vector.doubles + begin + LATE_WIDTH * key;
        if (late[1] != 0.0 && append(slots, Py_BuildValue("(ndd)", key, late[0], late[1])) < 0)
            Py_CLEAR(slots);
    }
    numbers_release(&vector);
    return slots;
}

/* -- the type --------------------------------------------------------------------------------------------------- */

static PyObject *packing_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    Py_ssize_t sums, peaks, ranks, size;
    const Py_ssize_t most = 1 << 24; /* so that no product below overflows */
    if (names != NULL && PyDict_Size(names) != 0) {
        PyErr_SetString(PyExc_TypeError, "Packing takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "nnnn", &sums, &peaks, &ranks, &size))
        return NULL;
    bool fits = sums >= 0 && sums <= most && peaks >= 0 && peaks <= most && ranks >= 1 && ranks <= most;
    Py_ssize_t slots = HEADER + sums, signs = fits ? slots + ranks * peaks : 0, late = fits ? signs + ranks : 0;
    if (!fits || size < late || size > PY_SSIZE_T_MAX / (Py_ssize_t)sizeof(double)) {
        PyErr_Format(PyExc_ValueError, "no vector of %zd has %zd sums and %zd peaks of %zd ranks", size, sums, peaks,
                     ranks);
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Packing *packing = (Packing *)allocate(type, 0);
    if (packing == NULL)
        return NULL;
    packing->sums = sums;
    packing->peaks = peaks;
    packing->ranks = ranks;
    packing->slots = slots;
    packing->signs = signs;
    packing->late = late;
    packing->size = size;
    return (PyObject *)packing;
}

static void packing_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef packing_methods[] = {
    {"pack", (PyCFunction)(void (*)(void))packing_pack, METH_FASTCALL, NULL},
    {"everybody", (PyCFunction)(void (*)(void))packing_everybody, METH_FASTCALL, NULL},
    {"unpack", (PyCFunction)(void (*)(void))packing_unpack, METH_FASTCALL, NULL},
    {"others", (PyCFunction)(void (*)(void))packing_others, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot packing_slots[] = {
    {Py_tp_new, (void *)packing_new},
    {Py_tp_dealloc, (void *)packing_dealloc},
    {Py_tp_methods, packing_methods},
    {0, NULL},
};

static PyType_Spec packing_spec = {
    .name = "otel_train.native._core.Packing",
    .basicsize = sizeof(Packing),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = packing_slots,
};

static PyMethodDef functions[] = {
    {"late_slots", (PyCFunction)(void (*)(void))late_slots, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

int add_reduction(PyObject *module)
{
    return PyModule_AddFunctions(module, functions) < 0 ? -1 : add_type(module, &packing_spec, NULL);
}
