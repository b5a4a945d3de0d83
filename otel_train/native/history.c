/* Numbers of the history rows in wandb's transaction logs, for the tools. The twin: bridge/wandb_file.py with
 * read/row_spool.py, which also reads whatever is unusual: these functions stop before it. Nothing of this runs in a
 * training process. */
#include "core.h"

#include <math.h>

#define CHUNK 7 /* bytes of a chunk's head: CRC-32, length, type */
#define BLOCK 32768 /* bytes of which no chunk goes beyond */
#define BLOCK_ROWS 1024
#define MOST_TIME 0x1p62 /* nanoseconds */
#define MOST_KEYS 512
#define SLOTS 2048 /* of the hash table: a power of two, four for each key */
#define MOST_NAME 256
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
/* Types of a chunk: a record, or a part of one. */
enum { FULL = 1, FIRST, MIDDLE, LAST };
/* Keys that each row is told by; their values must be numbers. */
enum { ORDINAL, TIMESTAMP, STEP, SPECIAL };
/* What a row is told by, as whole numbers. */
enum { HEAD_ORDINAL, HEAD_STEP, HEAD_TIME, HEADS };

static const uint64_t ABSENT_BITS = 0x7FF8000000000AB5u;

typedef struct {
    const uint8_t *at, *end;
} Span;

typedef struct {
    Numbers names, ends, table, values, heads, joined;
    int64_t keys, row;
    double before;
} Reading;

static uint64_t mixed(uint64_t state, const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    state = (state ^ word) * SPLITMIX_INCREMENT;
    return state ^ (state >> 32);
}

static uint64_t hash_of(const uint8_t *bytes, size_t count)
{
    uint64_t state = count;
    uint8_t few[8] = {0};
    if (count < sizeof few) {
        for (size_t at = 0; at < count; at++)
            few[at] = bytes[at];
        return mixed(state, few);
    }
    for (size_t at = 0; at + sizeof few < count; at += sizeof few)
        state = mixed(state, bytes + at);
    return mixed(state, bytes + count - sizeof few); /* it may overlap the one before */
}

/* Whether a key has this name. The ends are checked each time: nobody must rely on what other arrays hold. */
static bool is_name(const Reading *reading, int64_t key, const uint8_t *bytes, size_t count)
{
    int64_t begin = key == 0 ? 0 : reading->ends.longs[key - 1], end = reading->ends.longs[key];
    if (begin < 0 || end < begin || end > reading->names.count || (size_t)(end - begin) != count)
        return false;
    return memcmp((const uint8_t *)reading->names.bytes + begin, bytes, count) == 0;
}

/* Index of a key; -1 where it is not among those that are known. */
static int64_t key_at(const Reading *reading, const uint8_t *bytes, size_t count)
{
    for (uint64_t slot = hash_of(bytes, count), tries = 0; tries < SLOTS; slot++, tries++) {
        int64_t key = reading->table.longs[slot % SLOTS] - 1;
        if (key < 0 || key >= reading->keys)
            return -1;
        if (is_name(reading, key, bytes, count))
            return key;
    }
    return -1;
}

/* Enter the last key into the table. */
static void enter_key(const Reading *reading, const uint8_t *bytes, size_t count)
{
    uint64_t slot = hash_of(bytes, count), tries = 0;
    while (tries < SLOTS && reading->table.longs[slot % SLOTS] != 0)
        slot++, tries++;
    if (tries < SLOTS)
        reading->table.longs[slot % SLOTS] = reading->keys;
}

/* Make a name known, and return its index; -1 where there is no room, or where the twin must read it. */
static int64_t add_key(Reading *reading, const uint8_t *bytes, size_t count)
{
    int64_t key = reading->keys, begin = key == 0 ? 0 : reading->ends.longs[key - 1];
    if (key == MOST_KEYS || key >= reading->ends.count || (key + 1) * BLOCK_ROWS > reading->values.count)
        return -1;
    if (count == 0 || count > MOST_NAME || begin < 0 || begin > reading->names.count - (Py_ssize_t)count)
        return -1;
    for (size_t at = 0; at < count; at++)
        if (bytes[at] > 127)
            return -1;
    memmove((uint8_t *)reading->names.bytes + begin, bytes, count);
    reading->ends.longs[reading->keys++] = begin + (int64_t)count;
    enter_key(reading, bytes, count);
    return key;
}

static bool take_long_varint(Span *span, uint64_t *value)
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

static inline bool take_varint(Span *span, uint64_t *value)
{
    if (span->at == span->end || *span->at > 127)
        return take_long_varint(span, value);
    *value = *span->at++;
    return true;
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

static uint8_t *cell(const Reading *reading, int64_t key)
{
    return (uint8_t *)(reading->values.doubles + key * BLOCK_ROWS + reading->row);
}

/* Put the parts of a name together, a dot between them; false where there is no room. */
static bool join(uint8_t joined[MOST_NAME], Span *name, Span part)
{
    size_t before = (size_t)(name->end - name->at), count = (size_t)(part.end - part.at);
    if (before + 1 + count > MOST_NAME)
        return false;
    memmove(joined, name->at, before);
    joined[before] = '.';
    memcpy(joined + before + 1, part.at, count);
    *name = (Span){joined, joined + before + 1 + count};
    return true;
}

static bool take_item(Reading *reading, Span item)
{
    uint8_t joined[MOST_NAME];
    Span key = {NULL, NULL}, text = {NULL, NULL}, nested = {NULL, NULL}, bytes;
    bool is_number;
    uint64_t field;
    double value;
    while (item.at < item.end) {
        if (!take_field(&item, &field, &bytes) || bytes.at == NULL)
            return false;
        if (field == ITEM_KEY) {
            key = bytes;
        } else if (field == ITEM_JSON) {
            text = bytes;
        } else if (field != ITEM_NESTED) {
            return false;
        } else if (nested.at == NULL) {
            nested = bytes;
        } else if (!join(joined, &nested, bytes)) {
            return false;
        }
    }
    if (key.at == key.end)
        key = nested;
    if (key.at == NULL || text.at == NULL || !json_value(text.at, text.end, &value, &is_number))
        return false;
    int64_t index = key_at(reading, key.at, (size_t)(key.end - key.at));
    if (index < 0)
        index = add_key(reading, key.at, (size_t)(key.end - key.at));
    if (index < 0)
        return false;
    if (index < SPECIAL && !(is_number && fabs(value) < EXACT)) /* 2^53 itself may be 2^53 + 1, rounded */
        return false;
    memcpy(cell(reading, index), is_number ? (const void *)&value : (const void *)&ABSENT_BITS, sizeof value);
    return true;
}

static void clear_row(const Reading *reading)
{
    for (int64_t key = 0; key < reading->keys; key++)
        memcpy(cell(reading, key), &ABSENT_BITS, sizeof ABSENT_BITS);
}

/* A number that the row is told by, 0 where it has none. */
static double head(const Reading *reading, int64_t key)
{
    double value;
    memcpy(&value, cell(reading, key), sizeof value);
    return fabs(value) <= EXACT ? value : 0.0;
}

static void end_row(Reading *reading)
{
    double ordinal = head(reading, ORDINAL), step = head(reading, STEP), time = head(reading, TIMESTAMP) * 1e9;
    int64_t *heads = reading->heads.longs + reading->row++;
    heads[HEAD_ORDINAL * BLOCK_ROWS] = (int64_t)ordinal;
    heads[HEAD_STEP * BLOCK_ROWS] = (int64_t)rint(step);
    heads[HEAD_TIME * BLOCK_ROWS] = (int64_t)rint(fmax(-MOST_TIME, fmin(time, MOST_TIME)));
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
        end_row(reading);
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

/* Find the record at a position of some blocks, and return the position after it; -1 where it is not whole, or nothing
 * for us. One that lies in several chunks is put together. */
static Py_ssize_t next_record(const Reading *reading, Span blocks, Py_ssize_t position, Span *record)
{
    const Py_ssize_t count = blocks.end - blocks.at;
    Py_ssize_t used = 0;
    for (bool is_first = true;; is_first = false) {
        Py_ssize_t room = BLOCK - position % BLOCK;
        if (room < CHUNK)
            position += room, room = BLOCK;
        if (count - position < CHUNK)
            return -1;
        const uint8_t *chunk = blocks.at + position, *content = chunk + CHUNK, type = chunk[CHUNK - 1];
        uint32_t check;
        uint16_t size;
        memcpy(&check, chunk, sizeof check);
        memcpy(&size, chunk + sizeof check, sizeof size);
        position += CHUNK;
        if (is_first ? type != FULL && type != FIRST : type != MIDDLE && type != LAST)
            return -1;
        if (size > room - CHUNK || size > count - position || check_value(content - 1, (size_t)size + 1) != check)
            return -1;
        position += size;
        *record = (Span){content, content + size};
        if (type == FULL)
            return position;
        if (size > reading->joined.count - used)
            return -1;
        memmove((uint8_t *)reading->joined.bytes + used, content, size);
        used += size;
        if (type == LAST) {
            *record = (Span){reading->joined.bytes, (const uint8_t *)reading->joined.bytes + used};
            return position;
        }
    }
}

static Py_ssize_t take_records(Reading *reading, Span blocks, Py_ssize_t position)
{
    Span record;
    while (reading->row < BLOCK_ROWS) {
        Py_ssize_t next = next_record(reading, blocks, position, &record);
        if (next < 0 || !take_record(reading, record))
            break;
        position = next;
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
    return true;
}

static void release(Reading *reading)
{
    numbers_release(&reading->names);
    numbers_release(&reading->ends);
    numbers_release(&reading->table);
    numbers_release(&reading->values);
    numbers_release(&reading->heads);
    numbers_release(&reading->joined);
}

PyDoc_STRVAR(index_key_doc, "index_key(names, ends, keys, table): enter the last of so many keys into the table.");

static PyObject *index_key(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Reading reading = {0};
    PyObject *done = NULL;
    if (check_count(arg_count, 4, "index_key") < 0)
        return NULL;
    if (take_keys(&reading, args)) {
        int64_t begin = reading.keys > 1 ? reading.ends.longs[reading.keys - 2] : 0;
        int64_t end = reading.keys > 0 ? reading.ends.longs[reading.keys - 1] : 0;
        if (0 <= begin && begin <= end && end <= reading.names.count)
            enter_key(&reading, (const uint8_t *)reading.names.bytes + begin, (size_t)(end - begin));
        done = Py_NewRef(Py_None);
    }
    release(&reading);
    return done;
}

PyDoc_STRVAR(history_rows_doc,
             "history_rows(names, ends, keys, table, values, heads, row, before, joined, data, position): read records "
             "of wandb's from blocks of a file, as many as are usual and whole. Writes the numbers of each history row "
             "with a step below `before` to values[key * 1024 + row], and its ordinal, step and time to "
             "heads[i * 1024 + row]; adds the keys that are new. Parts of a record are put together in joined. Returns "
             "the position after what was read, the next row, and the number of keys.");

static PyObject *history_rows(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arg_count)
{
    Reading reading = {0};
    Py_buffer data;
    int64_t position;
    PyObject *done = NULL;
    if (check_count(arg_count, 11, "history_rows") < 0)
        return NULL;
    reading.before = PyFloat_AsDouble(args[7]);
    if (PyErr_Occurred())
        return NULL;
    if (!whole(args[6], &reading.row) || !whole(args[10], &position) || reading.row < 0 || reading.row > BLOCK_ROWS ||
        position < 0) {
        PyErr_SetString(PyExc_ValueError, "row and position must be within a block");
        return NULL;
    }
    if (PyObject_GetBuffer(args[9], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    if (take_keys(&reading, args) &&
        numbers_take(&reading.values, args[4], 'd', (Py_ssize_t)(reading.keys * BLOCK_ROWS)) == 0 &&
        numbers_take(&reading.heads, args[5], 'q', HEADS * BLOCK_ROWS) == 0 &&
        numbers_take(&reading.joined, args[8], 'B', 0) == 0) {
        const uint8_t *bytes = data.buf;
        if (reading.keys >= SPECIAL && position <= data.len)
            position = take_records(&reading, (Span){bytes, bytes + data.len}, (Py_ssize_t)position);
        done = Py_BuildValue("LLL", (long long)position, (long long)reading.row, (long long)reading.keys);
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
