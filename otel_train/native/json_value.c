/* A value of JSON as the number that it is, to the last bit as Python's own reader has it. The twin: json.loads in
 * bridge/wandb_file.py. */
#include "core.h"

#include <math.h>

#define MOST_DIGITS 64
#define MOST_TAKEN 19 /* digits that an uint64 holds */
#define MOST_POWER 22 /* of ten that a float64 holds */

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

typedef struct {
    const uint8_t *at, *end;
} Text;

static bool is_text(Text text, const char *literal)
{
    size_t count = strlen(literal);
    return (size_t)(text.end - text.at) == count && memcmp(text.at, literal, count) == 0;
}

static bool is_digit(const uint8_t *at, const uint8_t *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

#ifdef __SIZEOF_INT128__
#define MOST_TENS 19  /* 10^19 < 2^64 */
#define MOST_FIVES 27 /* 5^27 < 2^63 */

__extension__ typedef unsigned __int128 Wide;

/* Divide a positive number by a power of ten and round once: the quotient has at least 63 bits, and its last one tells
 * of a remainder too, so that it rounds as the exact one would. */
static double divided(uint64_t digits, int power)
{
    int known = power < MOST_TENS ? power : MOST_TENS;
    uint64_t fives = (uint64_t)POWERS[known] >> known;
    for (; known < power; known++)
        fives *= 5;
    int above = __builtin_clzll(digits), below = __builtin_clzll(fives);
    Wide top = (Wide)(digits << above) << 63;
    uint64_t bottom = fives << below, quotient = (uint64_t)(top / bottom);
    quotient |= (Wide)quotient * bottom != top;
    return ldexp((double)quotient, below - above - 63 - power);
}
#else
#define MOST_FIVES 0

static double divided(uint64_t digits, int Py_UNUSED(power))
{
    return (double)digits;
}
#endif

/* Take digits; a number of more than MOST_TAKEN wraps, and is not used. */
static const uint8_t *take_digits(const uint8_t *at, const uint8_t *end, uint64_t *digits)
{
    uint64_t eight;
    for (; end - at >= 8; at += 8) {
        memcpy(&eight, at, sizeof eight);
        uint64_t above = (eight + 0x0606060606060606u) & 0xF0F0F0F0F0F0F0F0u; /* of a byte that is no digit, another */
        if ((eight & 0xF0F0F0F0F0F0F0F0u) != 0x3030303030303030u || above != 0x3030303030303030u)
            break;
        eight = (eight & 0x0F0F0F0F0F0F0F0Fu) * (10 << 8 | 1) >> 8;
        eight = (eight & 0x00FF00FF00FF00FFu) * (100 << 16 | 1) >> 16;
        eight = (eight & 0x0000FFFF0000FFFFu) * (10000ull << 32 | 1) >> 32;
        *digits = *digits * 100000000 + eight;
    }
    for (; is_digit(at, end); at++)
        *digits = *digits * 10 + (uint64_t)(*at - '0');
    return at;
}

/* Read a number as JSON has it; false where it is none. */
static bool take_number(Text text, double *value)
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
    const uint8_t *whole = at, *fraction = end;
    at = take_digits(at, end, &digits);
    count = (int)(at - whole);
    if (at < end && *at == '.') {
        is_whole = false;
        fraction = ++at;
        if (!is_digit(at, end))
            return false;
        at = take_digits(at, end, &digits);
        power = (int)(fraction - at);
        count -= power;
    }
    if (count > MOST_TAKEN && *whole == '0')
        for (count--; fraction < at && *fraction == '0'; fraction++)
            count--;
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
    if (count <= MOST_TAKEN && digits <= (uint64_t)EXACT && power >= -MOST_POWER && power <= MOST_POWER) {
        /* Both are exact, so that one operation rounds once (Clinger 1990). */
        double exact = power < 0 ? (double)digits / POWERS[-power] : (double)digits * POWERS[power];
        *value = is_negative && !(is_whole && digits == 0) ? -exact : exact;
        return true;
    }
    if (count <= MOST_TAKEN && digits > 0 && power <= 0 && power >= -MOST_FIVES) {
        double rounded = divided(digits, -power);
        *value = is_negative ? -rounded : rounded;
        return true;
    }
    memcpy(copy, text.at, (size_t)(end - text.at));
    copy[end - text.at] = '\0';
    *value = PyOS_string_to_double(copy, NULL, NULL);
    return true;
}

/* A plain text, null, true or false, which is no number. */
static bool is_no_number(Text text)
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

bool json_value(const uint8_t *begin, const uint8_t *end, double *value, bool *is_number)
{
    Text text = {begin, end};
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
