/* Rows of a dump as text. The twin: read/row_texts.py. Nothing of this runs in a training process. */
#include "decimal.h"

#include <math.h>

#define KINDS 4
/* What stands around a row's cells, in `texts`: the names of the kinds, then these, then what is before each value. */
enum { BEFORE_KIND = KINDS, BEFORE_STEP, BEFORE_TIME, BEFORE_TIME_NS, AFTER_ROW, QUOTE, BEFORE_VALUES };
#define LONGEST_WORD 9 /* -Infinity */

/* The arguments of `write_rows` that are arrays. */
typedef union {
    struct {
        Numbers texts, ends, order, kinds, steps, times, values, present, out;
    };
    Numbers all[9];
} Rows;

static const char FORMATS[] = "BqqBqqdBB";

static char *write_text(char *to, const Rows *rows, int64_t index)
{
    int64_t begin = index > 0 ? rows->ends.longs[index - 1] : 0;
    size_t count = (size_t)(rows->ends.longs[index] - begin);
    memcpy(to, (const char *)rows->texts.bytes + begin, count);
    return to + count;
}

static char *write_value(char *to, const Rows *rows, double value)
{
    if (isfinite(value))
        return write_real(to, value);
    const char *word = isnan(value) ? "NaN" : value > 0.0 ? "Infinity" : "-Infinity";
    to = write_text(to, rows, QUOTE);
    size_t count = strlen(word);
    memcpy(to, word, count);
    return write_text(to + count, rows, QUOTE);
}

/* Write one row; NULL with an error set. */
static char *write_row(char *to, const Rows *rows, int64_t at, bool blanks)
{
    to = write_text(to, rows, BEFORE_KIND);
    to = write_text(to, rows, ((const uint8_t *)rows->kinds.bytes)[at]);
    to = write_text(to, rows, BEFORE_STEP);
    to = write_whole(to, rows->steps.longs[at]);
    to = write_text(to, rows, BEFORE_TIME);
    to = write_time(to, rows->times.longs[at]);
    to = write_text(to, rows, BEFORE_TIME_NS);
    to = write_whole(to, rows->times.longs[at]);
    Py_ssize_t value = at;
    for (Py_ssize_t text = BEFORE_VALUES; text < rows->ends.count; text++, value += rows->steps.count) {
        bool is_present = ((const uint8_t *)rows->present.bytes)[value] != 0;
        if (is_present || blanks)
            to = write_text(to, rows, text);
        if (is_present && (to = write_value(to, rows, rows->values.doubles[value])) == NULL)
            return NULL;
    }
    return write_text(to, rows, AFTER_ROW);
}

/* Check the arguments' sizes and indices, and count the bytes of the longest row; -1 with an error set. */
static int64_t check_rows(const Rows *rows)
{
    int64_t count = rows->steps.count, columns = rows->ends.count - BEFORE_VALUES, before = 0, kind = 0;
    bool fits = columns >= 0 && rows->kinds.count >= count && rows->times.count >= count &&
                rows->values.count / (count > 0 ? count : 1) >= columns &&
                rows->present.count / (count > 0 ? count : 1) >= columns;
    for (Py_ssize_t at = 0; fits && at < rows->ends.count; before = rows->ends.longs[at++]) {
        fits = rows->ends.longs[at] >= before && rows->ends.longs[at] <= rows->texts.count;
        kind = at < KINDS && rows->ends.longs[at] - before > kind ? rows->ends.longs[at] - before : kind;
    }
    for (Py_ssize_t at = 0; fits && at < count; at++)
        fits = ((const uint8_t *)rows->kinds.bytes)[at] < KINDS;
    for (Py_ssize_t at = 0; fits && at < rows->order.count; at++)
        fits = rows->order.longs[at] >= 0 && rows->order.longs[at] < count;
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "texts, rows and columns must fit each other");
        return -1;
    }
    int64_t quotes = 2 * (rows->ends.longs[QUOTE] - rows->ends.longs[QUOTE - 1]);
    int64_t longest = quotes + LONGEST_WORD > MOST_REAL ? quotes + LONGEST_WORD : MOST_REAL;
    return before + kind + 2 * MOST_DIGITS + TIME_BYTES + columns * longest;
}

PyDoc_STRVAR(write_rows_doc,
             "write_rows(texts, ends, order, kinds, steps, times, values, present, out, blanks, row): write rows, in "
             "the given order, from that index on, as many as certainly fit into `out`. Returns the index of the next "
             "one, and the bytes that were written.");

static PyObject *write_rows(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Rows rows = {0};
    PyObject *done = NULL;
    int64_t blanks, row, longest;
    if (check_count(arg_count, 11, "write_rows") < 0)
        return NULL;
    if (!whole(args[9], &blanks) || !whole(args[10], &row) || row < 0) {
        PyErr_SetString(PyExc_ValueError, "blanks must be 0 or 1, and row an index");
        return NULL;
    }
    for (int i = 0; i < 9; i++)
        if (numbers_take(rows.all + i, args[i], FORMATS[i], 0) < 0)
            goto end;
    if ((longest = check_rows(&rows)) < 0)
        goto end;
    if (longest > rows.out.count) {
        PyErr_Format(PyExc_ValueError, "out must have %lld bytes, got %zd", (long long)longest, rows.out.count);
        goto end;
    }
    char *begin = rows.out.bytes, *to = begin, *last = begin + rows.out.count - longest;
    while (row < rows.order.count && to <= last)
        if ((to = write_row(to, &rows, rows.order.longs[row++], blanks != 0)) == NULL)
            goto end;
    done = Py_BuildValue("Ln", (long long)row, (Py_ssize_t)(to - begin));
end:
    for (int i = 0; i < 9; i++)
        numbers_release(rows.all + i);
    return done;
}

static PyMethodDef functions[] = {
    {"write_rows", (PyCFunction)(void (*)(void))write_rows, METH_FASTCALL, write_rows_doc},
    {NULL, NULL, 0, NULL},
};

int add_row_text(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
