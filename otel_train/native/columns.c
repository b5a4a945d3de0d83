/* Whole rings read as columns, for the tools. The twins: ring/columns.py, read/pick_columns.py and
 * catalogue/column_values.py. Nothing of this runs in a training process. */
#include "core.h"

#include <math.h>

#define HEAD 4 /* of a record: sequence, step, time stamp, word with the kind */
#define WORD_BYTES 8
#define MOST_SOURCES 64
#define AHEAD 16 /* records that are asked of memory before their turn */
#define MOST_AT_ONCE ((int64_t)1 << 40)

/* A mapping that is read only. */
typedef struct {
    Py_buffer view;
    int64_t first, size, records;
} Mapping;

/* Arguments that all functions on a mapping begin with: mapping, offset of the first record, bytes of one, their
 * number. */
static int take_mapping(Mapping *mapping, PyObject *const *args)
{
    if (!whole(args[1], &mapping->first) || !whole(args[2], &mapping->size) || !whole(args[3], &mapping->records)) {
        PyErr_SetString(PyExc_TypeError, "offset, size and number of records must be int");
        return -1;
    }
    if (PyObject_GetBuffer(args[0], &mapping->view, PyBUF_SIMPLE) < 0)
        return -1;
    if (mapping->first < 0 || mapping->size < 8 * (HEAD + 1) || mapping->size % 8 || mapping->records < 1 ||
        mapping->records > (mapping->view.len - mapping->first) / mapping->size) {
        PyBuffer_Release(&mapping->view);
        PyErr_SetString(PyExc_ValueError, "the records are not within the mapping");
        return -1;
    }
    return 0;
}

static inline const uint8_t *record_at(const Mapping *mapping, int64_t sequence)
{
    return (const uint8_t *)mapping->view.buf + mapping->first + sequence % mapping->records * mapping->size;
}

PyDoc_STRVAR(whole_records_doc,
             "whole_records(mapping, first, size, records, begin, end, heads): count the whole records among those "
             "with the sequence numbers [begin, end), and write sequence, step, time stamp and word of each.");

static PyObject *whole_records(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Mapping mapping;
    Numbers heads = {0};
    int64_t begin, end, count = 0;
    if (check_count(arg_count, 7, "whole_records") < 0)
        return NULL;
    if (!whole(args[4], &begin) || !whole(args[5], &end) || begin < 0 || end < begin || end - begin > MOST_AT_ONCE) {
        PyErr_SetString(PyExc_ValueError, "begin and end must be sequence numbers in order");
        return NULL;
    }
    if (take_mapping(&mapping, args) < 0)
        return NULL;
    if (numbers_take(&heads, args[6], 'q', (Py_ssize_t)(HEAD * (end - begin))) < 0) {
        PyBuffer_Release(&mapping.view);
        return NULL;
    }
    size_t body = (size_t)mapping.size - WORD_BYTES;
    for (int64_t sequence = begin; sequence < end; sequence++) {
        const uint8_t *record = record_at(&mapping, sequence);
        uint64_t check;
        int64_t head[HEAD];
        memcpy(&check, record + body, sizeof check);
        memcpy(head, record, sizeof head);
        if (head[0] != sequence || check != check_value(record, body))
            continue;
        memcpy(heads.longs + HEAD * count++, head, sizeof head);
    }
    PyBuffer_Release(&mapping.view);
    numbers_release(&heads);
    return PyLong_FromLongLong(count);
}

PyDoc_STRVAR(gather_doc, "gather(mapping, first, size, records, sequences, begin, end, offset, out): write the float64 "
                         "at an offset of the records with the sequence numbers sequences[begin:end] to out, at the "
                         "same indices.");

static PyObject *gather(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Mapping mapping;
    Numbers sequences = {0}, out = {0};
    int64_t begin, end, offset;
    PyObject *done = NULL;
    if (check_count(arg_count, 9, "gather") < 0)
        return NULL;
    if (!whole(args[5], &begin) || !whole(args[6], &end) || !whole(args[7], &offset) || begin < 0 || end < begin) {
        PyErr_SetString(PyExc_ValueError, "begin and end must be indices in order");
        return NULL;
    }
    if (take_mapping(&mapping, args) < 0)
        return NULL;
    if (offset < 0 || offset > mapping.size - WORD_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the offset is not within a record");
    } else if (numbers_take(&sequences, args[4], 'q', (Py_ssize_t)end) == 0 &&
               numbers_take(&out, args[8], 'd', (Py_ssize_t)end) == 0) {
        for (int64_t at = begin; at < end; at++) {
            if (at + AHEAD < end && sequences.longs[at + AHEAD] >= 0)
                __builtin_prefetch(record_at(&mapping, sequences.longs[at + AHEAD]) + offset);
            if (sequences.longs[at] < 0)
                out.doubles[at] = NAN;
            else
                memcpy(out.doubles + at, record_at(&mapping, sequences.longs[at]) + offset, sizeof(double));
        }
        done = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&mapping.view);
    numbers_release(&sequences);
    numbers_release(&out);
    return done;
}

double rounded_sum(const Partials *sum)
{
    const double *partials = sum->parts;
    Py_ssize_t used = sum->used;
    double high = 0.0, low = 0.0;
    if (used > 0) {
        high = partials[--used];
        while (used > 0) {
            double x = high, y = partials[--used];
            high = x + y;
            low = y - (high - x);
            if (low != 0.0)
                break;
        }
        /* Half-way cases are rounded to even by what follows. */
        if (used > 0 && ((low < 0.0 && partials[used - 1] < 0.0) || (low > 0.0 && partials[used - 1] > 0.0))) {
            double y = low * 2.0, x = high + y;
            if (y == x - high)
                high = x;
        }
    }
    return high;
}

double exact_sum(const double *values, Py_ssize_t count)
{
    Partials sum;
    sum.used = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!add_exactly(&sum, values[i]))
            return NAN;
    return rounded_sum(&sum);
}

/* Columns of sources, side by side: float64 [width * rows] each. */
static int take_columns(Numbers *columns, PyObject *const *args, int count, int64_t rows, int64_t width)
{
    if (rows < 0 || width < 1 || width > MOST_SOURCES || rows > PY_SSIZE_T_MAX / 8 / width) {
        PyErr_SetString(PyExc_ValueError, "too many rows or sources");
        return -1;
    }
    for (int i = 0; i < count; i++)
        if (numbers_take(columns + i, args[i], 'd', (Py_ssize_t)(rows * width)) < 0)
            return -1;
    return 0;
}

static void release_columns(Numbers *columns, int count)
{
    for (int i = 0; i < count; i++)
        numbers_release(columns + i);
}

static void row_of(double *row, const Numbers *columns, int64_t rows, int64_t width, int64_t at)
{
    for (int64_t j = 0; j < width; j++)
        row[j] = columns->doubles[j * rows + at];
}

static double divergence(const double *counts, const double *targets, int64_t width)
{
    double terms[MOST_SOURCES];
    Py_ssize_t used = 0;
    for (int64_t j = 0; j < width; j++)
        if (!isfinite(counts[j]) || !isfinite(targets[j]))
            return NAN;
    double total = exact_sum(counts, (Py_ssize_t)width), target_total = exact_sum(targets, (Py_ssize_t)width);
    if (!isfinite(total + target_total))
        return NAN;
    if (!(total > 0.0 && target_total > 0.0))
        return 0.0;
    for (int64_t j = 0; j < width; j++) {
        double p = counts[j] / total, q = targets[j] / target_total;
        if (p + q > 0.0) {
            double d = (p - q) / (p + q);
            double spread = fabs(d) < 1.0 ? log1p(-d * d) + 2.0 * d * atanh(d) : 2.0 * log(2.0);
            terms[used++] = (p + q) * spread;
        }
    }
    double bits = exact_sum(terms, used) / (4.0 * log(2.0));
    return bits > 0.0 ? (bits < 1.0 ? bits : 1.0) : 0.0;
}

PyDoc_STRVAR(divergences_doc, "divergences(rows, width, counts, targets, out): write the divergence of each row.");

static PyObject *divergences(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers columns[2] = {0}, out = {0};
    double counts[MOST_SOURCES], targets[MOST_SOURCES];
    int64_t rows, width;
    PyObject *done = NULL;
    if (check_count(arg_count, 5, "divergences") < 0)
        return NULL;
    if (!whole(args[0], &rows) || !whole(args[1], &width)) {
        PyErr_SetString(PyExc_TypeError, "rows and width must be int");
        return NULL;
    }
    if (take_columns(columns, args + 2, 2, rows, width) == 0 &&
        numbers_take(&out, args[4], 'd', (Py_ssize_t)rows) == 0) {
        for (int64_t at = 0; at < rows; at++) {
            row_of(counts, columns, rows, width, at);
            row_of(targets, columns + 1, rows, width, at);
            out.doubles[at] = divergence(counts, targets, width);
        }
        done = Py_NewRef(Py_None);
    }
    release_columns(columns, 2);
    numbers_release(&out);
    return done;
}

PyDoc_STRVAR(alikes_doc, "alikes(rows, width, counts, signs, out): write the mean square of each row's signs over its "
                         "count, 0 where that is 0.");

static PyObject *alikes(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers signs = {0}, counts = {0}, out = {0};
    double row[MOST_SOURCES];
    int64_t rows, width;
    PyObject *done = NULL;
    if (check_count(arg_count, 5, "alikes") < 0)
        return NULL;
    if (!whole(args[0], &rows) || !whole(args[1], &width)) {
        PyErr_SetString(PyExc_TypeError, "rows and width must be int");
        return NULL;
    }
    if (take_columns(&signs, args + 3, 1, rows, width) == 0 &&
        numbers_take(&counts, args[2], 'd', (Py_ssize_t)rows) == 0 &&
        numbers_take(&out, args[4], 'd', (Py_ssize_t)rows) == 0) {
        for (int64_t at = 0; at < rows; at++) {
            double plain = 0.0, count = counts.doubles[at];
            row_of(row, &signs, rows, width, at);
            for (int64_t j = 0; j < width; j++)
                plain += row[j] *= row[j];
            double sum = isfinite(plain) ? exact_sum(row, (Py_ssize_t)width) : plain;
            out.doubles[at] = count != 0.0 ? sum / (double)width / count : 0.0;
        }
        done = Py_NewRef(Py_None);
    }
    release_columns(&signs, 1);
    numbers_release(&counts);
    numbers_release(&out);
    return done;
}

PyDoc_STRVAR(interval_picks_doc,
             "interval_picks(rows, width, horizon, counts, targets, picks, kept, new, shares): undo the decay of each "
             "row since the one before. Writes the indices of the intervals that are known to kept, their picks and "
             "shares beside each other, and returns their number.");

/* Picks and shares of one interval; 0 where it is not known, -1 with an error set where its values mean nothing. */
static int one_interval(const double *now, const double *before, const double *aimed, const double *aimed_before,
                        double picks, double horizon, int64_t width, double *new, double *shares)
{
    double keep = exp(-picks / horizon);
    for (int64_t j = 0; j < width; j++) {
        double grown = rint(now[j] - before[j] * keep), aim = aimed[j] - aimed_before[j] * keep;
        if (!isfinite(grown)) {
            PyErr_SetString(PyExc_ValueError, "cannot convert a count that is not finite to integer");
            return -1;
        }
        new[j] = grown > 0.0 ? grown : 0.0;
        shares[j] = aim > 0.0 ? aim : 0.0;
    }
    double total = exact_sum(shares, (Py_ssize_t)width);
    if (!(total > 0.0) || exact_sum(new, (Py_ssize_t)width) != picks)
        return 0;
    for (int64_t j = 0; j < width; j++)
        shares[j] /= total;
    return 1;
}

static PyObject *interval_picks(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    /* counts, targets, new, shares */
    Numbers columns[4] = {0}, picks = {0}, kept = {0};
    double row[6][MOST_SOURCES];
    int64_t rows, width, count = 0;
    PyObject *done = NULL;
    if (check_count(arg_count, 9, "interval_picks") < 0)
        return NULL;
    double horizon = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (!whole(args[0], &rows) || !whole(args[1], &width)) {
        PyErr_SetString(PyExc_TypeError, "rows and width must be int");
        return NULL;
    }
    if (take_columns(columns, args + 3, 2, rows, width) < 0 ||
        take_columns(columns + 2, args + 7, 2, rows, width) < 0 ||
        numbers_take(&picks, args[5], 'd', (Py_ssize_t)rows) < 0 ||
        numbers_take(&kept, args[6], 'q', (Py_ssize_t)rows) < 0)
        goto end;
    for (int64_t at = 1; at < rows; at++) {
        double drawn = picks.doubles[at];
        if (!(0.0 < drawn && drawn < 9007199254740992.0))
            continue;
        row_of(row[0], columns, rows, width, at);
        row_of(row[1], columns, rows, width, at - 1);
        row_of(row[2], columns + 1, rows, width, at);
        row_of(row[3], columns + 1, rows, width, at - 1);
        int known = one_interval(row[0], row[1], row[2], row[3], drawn, horizon, width, row[4], row[5]);
        if (known < 0)
            goto end;
        if (known == 0)
            continue;
        for (int64_t j = 0; j < width; j++) {
            columns[2].doubles[j * rows + count] = row[4][j];
            columns[3].doubles[j * rows + count] = row[5][j];
        }
        kept.longs[count++] = at;
    }
    done = PyLong_FromLongLong(count);
end:
    release_columns(columns, 4);
    numbers_release(&picks);
    numbers_release(&kept);
    return done;
}

PyDoc_STRVAR(window_means_doc,
             "window_means(count, width, values, out): write the mean of each window of so many values.");

static PyObject *window_means(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Numbers values = {0}, out = {0};
    int64_t count, width;
    PyObject *done = NULL;
    if (check_count(arg_count, 4, "window_means") < 0)
        return NULL;
    if (!whole(args[0], &count) || !whole(args[1], &width) || count < 0 || count > MOST_AT_ONCE || width < 1) {
        PyErr_SetString(PyExc_ValueError, "count and width must be positive");
        return NULL;
    }
    int64_t windows = count < width ? 0 : count - width + 1;
    if (numbers_take(&values, args[2], 'd', (Py_ssize_t)count) == 0 &&
        numbers_take(&out, args[3], 'd', (Py_ssize_t)windows) == 0) {
        for (int64_t at = 0; at < windows; at++)
            out.doubles[at] = exact_sum(values.doubles + at, (Py_ssize_t)width) / (double)width;
        done = Py_NewRef(Py_None);
    }
    numbers_release(&values);
    numbers_release(&out);
    return done;
}

static PyMethodDef functions[] = {
    {"whole_records", (PyCFunction)(void (*)(void))whole_records, METH_FASTCALL, whole_records_doc},
    {"gather", (PyCFunction)(void (*)(void))gather, METH_FASTCALL, gather_doc},
    {"alikes", (PyCFunction)(void (*)(void))alikes, METH_FASTCALL, alikes_doc},
    {"divergences", (PyCFunction)(void (*)(void))divergences, METH_FASTCALL, divergences_doc},
    {"interval_picks", (PyCFunction)(void (*)(void))interval_picks, METH_FASTCALL, interval_picks_doc},
    {"window_means", (PyCFunction)(void (*)(void))window_means, METH_FASTCALL, window_means_doc},
    {NULL, NULL, 0, NULL},
};

int add_columns(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
