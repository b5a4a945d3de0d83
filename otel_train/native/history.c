/* Numbers of the history rows in wandb's transaction logs, for the tools. The twin: bridge/wandb_file.py with
 * read/row_spool.py, which also reads whatever is unusual: these functions stop before it. Nothing of this runs in a
 * training process. */
#include "core.h"

#include <math.h>

#define CHUNK 7 /* bytes of a chunk's head: CRC-32, length, type */
#define FULL 1
#define BLOCK_ROWS 1024
#define MOST_KEYS 512
#define SLOTS 2048 /* of the hash table: a power of two, four for each key */
#define MOST_NAME 256
#define MOST_DIGITS 64
#define WIRE_VARINT 0
#define WIRE_BYTES 2
/* Fields of wandb's messages. */
#define RECORD_NUM 1
#define RECORD_HISTORY 2
#define RECORD_CONTROL 16
#define RECORD_UUID 19
#define RECORD_INFO 200
#define MOST_RECORD 100 /* of the kinds of a record; a request is the last */
#define HISTORY_ITEM 1
#define HISTORY_STEP 2
#define ITEM_KEY 1
#define ITEM_NESTED 2
#define ITEM_JSON 16
/* Keys that each row is told by; their values must be numbers. */
enum { ORDINAL, TIMESTAMP, STEP, SPECIAL };

#define EXACT 9007199254740992.0 /* 2^53 */

static const uint64_t ABSENT_BITS = 0x7FF8000000000AB5u;
static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define MOST_POWER 22

typedef struct {
    const uint8_t *at, *end;
} Span;

typedef struct {
    Numbers names, ends, table, values;
    int64_t keys, row;
    double before;
} Reading;

static uint64_t hash_of(const uint8_t *bytes, size_t count)
{
    uint64_t state = count, word;
    for (; count >= 8; bytes += 8, count -= 8) {
        memcpy(&word, bytes, 8);
        state = (state ^ word) * SPLITMIX_INCREMENT;
        state ^= state >> 32;
    }
    word = 0;
    memcpy(&word, bytes, count);
    return splitmix(state ^ word);
}

static size_t name_of(const Reading *reading, int64_t key, const uint8_t **name)
{
    int64_t begin = key == 0 ? 0 : reading->ends.longs[key - 1];
    *name = (const uint8_t *)reading->names.bytes + begin;
    return (size_t)(reading->ends.longs[key] - begin);
}

/* Index of a key; -1 where it is not among those that are known. */
static int64_t key_at(const Reading *reading, const uint8_t *bytes, size_t count)
{
    const uint8_t *name;
    for (uint64_t slot = hash_of(bytes, count), tries = 0; tries < SLOTS; slot++, tries++) {
        int64_t key = reading->table.longs[slot % SLOTS] - 1;
        if (key < 0 || key >= reading->keys)
            return -1;
        if (name_of(reading, key, &name) == count && memcmp(name, bytes, count) == 0)
            return key;
    }
    return -1;
}

static bool take_varint(Span *span, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 63 && span->at < span->end; shift += 7) {
        uint8_t byte = *span->at++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return true;
    }
    return false;
}

/* The next field of a message: its number, and its bytes where it has some. */
static bool take_field(Span *span, uint64_t *field, Span *bytes)
{
    uint64_t tag, size;
    if (!take_varint(span, &tag))
        return false;
    *field = tag >> 3;
    bytes->at = bytes->end = NULL;
    if ((tag & 7) == WIRE_VARINT)
        return take_varint(span, &size);
    if ((tag & 7) != WIRE_BYTES || !take_varint(span, &size) || size > (uint64_t)(span->end - span->at))
        return false;
    bytes->at = span->at;
    bytes->end = span->at += size;
    return true;
}

static bool is_text(Span text, const char *literal)
{
    size_t count = strlen(literal);
    return (size_t)(text.end - text.at) == count && memcmp(text.at, literal, count) == 0;
}

static bool is_digit(const uint8_t *at, const uint8_t *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

/* Read a number as JSON has it; false where it is none. */
static bool take_number(Span text, double *value)
{
    const uint8_t *at = text.at, *end = text.end;
    uint64_t digits = 0;
    int power = 0, count = 0;
    char copy[MOST_DIGITS + 1];
    bool is_negative = at < end && *at == '-', is_whole = true;
    if (end - at > MOST_DIGITS)
        return false;
    at += is_negative;
    if (!is_digit(at, end) || (*at == '0' && is_digit(at + 1, end)))
        return false;
    for (; is_digit(at, end); at++) {
        digits = digits * 10 + (uint64_t)(*at - '0'); /* it may wrap where there are more than 19, which are not used */
        count += count > 0 || *at != '0';
    }
    if (at < end && *at == '.') {
        is_whole = false;
        if (!is_digit(++at, end))
            return false;
        for (; is_digit(at, end); at++, power--) {
            digits = digits * 10 + (uint64_t)(*at - '0');
            count += count > 0 || *at != '0';
        }
    }
    if (at < end && (*at | 32) == 'e') {
        is_whole = false;
        bool is_small = ++at < end && *at == '-';
        at += at < end && (*at == '-' || *at == '+');
        if (!is_digit(at, end))
            return false;
        int given = 0;
        for (; is_digit(at, end); at++)
            given = given < 10000 ? given * 10 + (*at - '0') : given;
        power += is_small ? -given : given;
    }
    if (at != end)
        return false;
    if (count <= 19 && digits <= (uint64_t)EXACT && power >= -MOST_POWER && power <= MOST_POWER) {
        /* Both are exact, so that one operation rounds once (Clinger 1990). */
        double exact = power < 0 ? (double)digits / POWERS[-power] : (double)digits * POWERS[power];
        *value = is_negative && !(is_whole && digits == 0) ? -exact : exact;
        return true;
    }
    memcpy(copy, text.at, (size_t)(end - text.at));
    copy[end - text.at] = '\0';
    *value = PyOS_string_to_double(copy, NULL, NULL);
    return true;
}

/* A plain text, null, true or false, which is no number. */
static bool is_no_number(Span text)
{
    if (is_text(text, "null") || is_text(text, "true") || is_text(text, "false"))
        return true;
    if (text.end - text.at < 2 || *text.at != '"' || text.end[-1] != '"')
        return false;
    for (const uint8_t *at = text.at + 1; at < text.end - 1; at++)
        if (*at < 32 || *at > 126 || *at == '"' || *at == '\\')
            return false;
    return true;
}

static bool take_value(Span text, double *value, bool *is_number)
{
    *is_number = true;
    if (take_number(text, value))
        return true;
    if (is_text(text, "NaN"))
        *value = NAN;
    else if (is_text(text, "Infinity"))
        *value = INFINITY;
    else if (is_text(text, "-Infinity"))
        *value = -INFINITY;
    else
        return *is_number = false, is_no_number(text);
    return true;
}

static uint8_t *cell(const Reading *reading, int64_t key)
{
    return (uint8_t *)(reading->values.doubles + key * BLOCK_ROWS + reading->row);
}

static bool take_item(const Reading *reading, Span item)
{
    uint8_t joined[MOST_NAME];
    Span key = {NULL, NULL}, text = {NULL, NULL}, bytes;
    size_t nested = 0;
    bool is_nested = false, is_number;
    uint64_t field;
    double value;
    while (item.at < item.end) {
        if (!take_field(&item, &field, &bytes) || bytes.at == NULL)
            return false;
        size_t count = (size_t)(bytes.end - bytes.at);
        if (field == ITEM_KEY) {
            key = bytes;
        } else if (field == ITEM_JSON) {
            text = bytes;
        } else if (field == ITEM_NESTED && nested + is_nested + count <= sizeof joined) {
            if (is_nested)
                joined[nested++] = '.';
            memcpy(joined + nested, bytes.at, count);
            nested += count;
            is_nested = true;
        } else {
            return false;
        }
    }
    int64_t index = key.at == key.end ? key_at(reading, joined, nested)
                                      : key_at(reading, key.at, (size_t)(key.end - key.at));
    if (index < 0 || text.at == NULL || !take_value(text, &value, &is_number))
        return false;
    if (index < SPECIAL && !(is_number && fabs(value) <= EXACT))
        return false;
    memcpy(cell(reading, index), is_number ? (const void *)&value : (const void *)&ABSENT_BITS, sizeof value);
    return true;
}

static void clear_row(const Reading *reading)
{
    for (int64_t key = 0; key < reading->keys; key++)
        memcpy(cell(reading, key), &ABSENT_BITS, sizeof ABSENT_BITS);
}

static bool take_history(Reading *reading, Span history)
{
    Span bytes;
    uint64_t field;
    double step;
    while (history.at < history.end) {
        if (!take_field(&history, &field, &bytes) || bytes.at == NULL)
            return false;
        if (field == HISTORY_ITEM ? !take_item(reading, bytes) : field != HISTORY_STEP && field != RECORD_INFO)
            return false;
    }
    memcpy(&step, cell(reading, STEP), sizeof step);
    if (step < reading->before)
        reading->row++;
    else /* another step, or none */
        clear_row(reading);
    return true;
}

/* Take a record: a history row's numbers as a row, none of another. False where it is left to the twin. */
static bool take_record(Reading *reading, Span record)
{
    Span bytes, history = {NULL, NULL};
    uint64_t field;
    int kinds = 0;
    while (record.at < record.end) {
        if (!take_field(&record, &field, &bytes))
            return false;
        if (field == RECORD_HISTORY)
            history = bytes;
        if (field != RECORD_NUM && field != RECORD_CONTROL && field != RECORD_UUID && field != RECORD_INFO) {
            if (field < RECORD_HISTORY || field > MOST_RECORD || bytes.at == NULL)
                return false;
            kinds++;
        }
    }
    if (kinds != 1)
        return false;
    if (history.at == NULL)
        return true;
    if (take_history(reading, history))
        return true;
    clear_row(reading);
    return false;
}

static Py_ssize_t take_block(Reading *reading, const uint8_t *block, Py_ssize_t count, Py_ssize_t position)
{
    while (reading->row < BLOCK_ROWS && count - position >= CHUNK) {
        const uint8_t *chunk = block + position;
        uint32_t check;
        uint16_t size;
        memcpy(&check, chunk, sizeof check);
        memcpy(&size, chunk + 4, sizeof size);
        if (chunk[6] != FULL || size > count - position - CHUNK || check_value(chunk + 6, (size_t)size + 1) != check)
            break;
        if (!take_record(reading, (Span){chunk + CHUNK, chunk + CHUNK + size}))
            break;
        position += CHUNK + size;
    }
    return position;
}

static bool take_keys(Reading *reading, PyObject *const *args)
{
    if (!whole(args[2], &reading->keys) || reading->keys < 0 || reading->keys > MOST_KEYS) {
        PyErr_SetString(PyExc_ValueError, "too many keys");
        return false;
    }
    if (numbers_take(&reading->names, args[0], 'B', 0) < 0 ||
        numbers_take(&reading->ends, args[1], 'q', (Py_ssize_t)reading->keys) < 0 ||
        numbers_take(&reading->table, args[3], 'q', SLOTS) < 0)
        return false;
    int64_t end = 0;
    for (int64_t key = 0; key < reading->keys; end = reading->ends.longs[key++])
        if (reading->ends.longs[key] < end || reading->ends.longs[key] > reading->names.count) {
            PyErr_SetString(PyExc_ValueError, "the names' ends are not in order");
            return false;
        }
    return true;
}

static void release(Reading *reading)
{
    numbers_release(&reading->names);
    numbers_release(&reading->ends);
    numbers_release(&reading->table);
    numbers_release(&reading->values);
}

PyDoc_STRVAR(index_key_doc, "index_key(names, ends, keys, table): enter the last of so many keys into the table.");

static PyObject *index_key(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Reading reading = {0};
    PyObject *done = NULL;
    if (check_count(arg_count, 4, "index_key") < 0)
        return NULL;
    if (take_keys(&reading, args)) {
        const uint8_t *name;
        size_t count = reading.keys > 0 ? name_of(&reading, reading.keys - 1, &name) : 0;
        uint64_t slot = reading.keys > 0 ? hash_of(name, count) : 0, tries = 0;
        while (tries < SLOTS && reading.table.longs[slot % SLOTS] != 0)
            slot++, tries++;
        if (reading.keys > 0 && tries < SLOTS)
            reading.table.longs[slot % SLOTS] = reading.keys;
        done = Py_NewRef(Py_None);
    }
    release(&reading);
    return done;
}

PyDoc_STRVAR(history_rows_doc,
             "history_rows(names, ends, keys, table, values, row, before, data, position): read records of wandb's "
             "from a block of a file, or, where position is negative, from data that are one record. Writes the "
             "numbers of each history row with a step below `before` to values[key * 1024 + row]. Returns the "
             "position after what was read, and the next row.");

static PyObject *history_rows(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Reading reading = {0};
    Py_buffer data;
    int64_t position;
    PyObject *done = NULL;
    if (check_count(arg_count, 9, "history_rows") < 0)
        return NULL;
    reading.before = PyFloat_AsDouble(args[6]);
    if (PyErr_Occurred())
        return NULL;
    if (!whole(args[5], &reading.row) || !whole(args[8], &position) || reading.row < 0 || reading.row > BLOCK_ROWS) {
        PyErr_SetString(PyExc_ValueError, "row and position must be within a block");
        return NULL;
    }
    if (PyObject_GetBuffer(args[7], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    if (take_keys(&reading, args) &&
        numbers_take(&reading.values, args[4], 'd', (Py_ssize_t)(reading.keys * BLOCK_ROWS)) == 0) {
        const uint8_t *bytes = data.buf;
        if (reading.keys < SPECIAL || reading.row == BLOCK_ROWS)
            ; /* nothing can be read */
        else if (position >= 0)
            position = position <= data.len ? take_block(&reading, bytes, data.len, (Py_ssize_t)position) : position;
        else if (take_record(&reading, (Span){bytes, bytes + data.len}))
            position = data.len;
        done = Py_BuildValue("LL", (long long)position, (long long)reading.row);
    }
    PyBuffer_Release(&data);
    release(&reading);
    return done;
}

static PyMethodDef functions[] = {
    {"index_key", (PyCFunction)(void (*)(void))index_key, METH_FASTCALL, index_key_doc},
    {"history_rows", (PyCFunction)(void (*)(void))history_rows, METH_FASTCALL, history_rows_doc},
    {NULL, NULL, 0, NULL},
};

int add_history(PyObject *module)
{
    return PyModule_AddFunctions(module, functions);
}
