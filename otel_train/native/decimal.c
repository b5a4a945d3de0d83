/* Decimal text. The twins are Python's own: str, repr, and rfc3339 in read/row_texts.py. */
#include "decimal.h"

#include <math.h>

#define DAY_SECONDS 86400
#define SECOND_NS 1000000000
#define LEAST_POWER (-7) /* numbers from 1e-7 on, and below 1e15, are written here; others by Python */
#define PLACES 15        /* digits that no two float64 share */
#define WHOLE_BELOW 1e15

/* Powers of ten that are float64, which those below 1 are nearly. */
static const double TENS[] = {1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define TEN(power) (TENS[(power) - LEAST_POWER])

static char *write_digits(char *to, uint64_t number)
{
    char digits[MOST_DIGITS];
    int at = MOST_DIGITS;
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    memcpy(to, digits + at, (size_t)(MOST_DIGITS - at));
    return to + MOST_DIGITS - at;
}

/* Write so many digits, with zeros before. */
static char *write_padded(char *to, uint64_t number, int width)
{
    for (int at = width - 1; at >= 0; at--, number /= 10)
        to[at] = (char)('0' + number % 10);
    return to + width;
}

char *write_whole(char *to, int64_t number)
{
    if (number < 0)
        *to++ = '-';
    return write_digits(to, number < 0 ? -(uint64_t)number : (uint64_t)number);
}

char *write_time(char *to, int64_t time_ns)
{
    int64_t second = time_ns / SECOND_NS, rest = time_ns % SECOND_NS;
    if (rest < 0)
        second -= 1, rest += SECOND_NS;
    int64_t day = second / DAY_SECONDS, in_day = second % DAY_SECONDS;
    if (in_day < 0)
        day -= 1, in_day += DAY_SECONDS;
    /* Days since the 1st of March of the year 0, so that a leap day ends its year (civil_from_days of Hinnant's
     * "chrono-Compatible Low-Level Date Algorithms"). An int64 of nanoseconds holds the years 1677 to 2262. */
    uint64_t days = (uint64_t)(day + 719468), era = days / 146097, of_era = days % 146097;
    uint64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
    to = write_padded(to, era * 400 + year + (month >= 10), 4);
    *to++ = '-';
    to = write_padded(to, month < 10 ? month + 3 : month - 9, 2);
    *to++ = '-';
    to = write_padded(to, of_year - (153 * month + 2) / 5 + 1, 2);
    *to++ = 'T';
    to = write_padded(to, (uint64_t)in_day / 3600, 2);
    *to++ = ':';
    to = write_padded(to, (uint64_t)in_day / 60 % 60, 2);
    *to++ = ':';
    to = write_padded(to, (uint64_t)in_day % 60, 2);
    *to++ = '.';
    to = write_padded(to, (uint64_t)rest, 9);
    *to++ = 'Z';
    return to;
}

/* Write number / 10^places, whose digits are the shortest: as repr does, with an exponent below 1e-4. */
static char *write_places(char *to, uint64_t number, int places)
{
    char digits[MOST_DIGITS];
    while (number % 10 == 0)
        number /= 10, places--;
    int count = (int)(write_digits(digits, number) - digits), point = count - places;
    if (point < -3) {
        *to++ = digits[0];
        if (count > 1) {
            *to++ = '.';
            memcpy(to, digits + 1, (size_t)count - 1);
            to += count - 1;
        }
        *to++ = 'e';
        *to++ = '-';
        return write_padded(to, (uint64_t)(1 - point), 2);
    }
    if (point <= 0) {
        memcpy(to, "0.000", 5);
        to += 2 - point;
        memcpy(to, digits, (size_t)count);
        return to + count;
    }
    memcpy(to, digits, (size_t)point);
    to += point;
    *to++ = '.';
    memcpy(to, digits + point, (size_t)(count - point));
    return to + count - point;
}

#ifdef __SIZEOF_INT128__
/* Find the 16 or 17 digits of a number that has no fewer, from 10^(point - 1) on and below 10^point. Exactly: the
 * number is mantissa / 2^shift, and times 10^(16 - point), which has 16 digits before its point, an integer of less
 * than 127 bits / 2^shift. False, so that Python finds them, where two decimals are as near. */
static bool long_digits(double number, int point, uint64_t *digits, int *places)
{
    int exponent;
    uint64_t mantissa = (uint64_t)ldexp(frexp(number, &exponent), 53);
    int shift = 53 - exponent, power = PLACES + 1 - point;
    int first = power > 11 ? 11 : power;
    unsigned __int128 ten = (unsigned __int128)TEN(first) * (uint64_t)TEN(power - first);
    unsigned __int128 scaled = ten * mantissa, below = ((unsigned __int128)1 << shift) - 1, half = (below >> 1) + 1;
    uint64_t whole_part = (uint64_t)(scaled >> shift);
    unsigned __int128 rest = scaled & below;
    if (mantissa == (uint64_t)1 << 52 || rest == half) /* the numbers below a power of two are nearer */
        return false;
    /* What reads as this number is within half a unit of its last bit: ten / 2. */
    unsigned __int128 apart = 2 * (rest > half ? below - rest + 1 : rest);
    if (apart == ten)
        return false;
    *digits = whole_part + (rest > half), *places = power;
    if (apart < ten)
        return true;
    rest *= 10;
    *digits = whole_part * 10 + (uint64_t)(rest >> shift), *places = power + 1;
    rest &= below;
    *digits += rest > half;
    return rest != half;
}
#endif

static char *write_by_python(char *to, double number)
{
    PyObject *object = PyFloat_FromDouble(number), *text = object == NULL ? NULL : PyObject_Repr(object);
    Py_ssize_t count = 0;
    const char *utf8 = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &count);
    if (utf8 != NULL && count > MOST_REAL) {
        PyErr_SetString(PyExc_ValueError, "a float's text has more than 24 bytes");
        utf8 = NULL;
    }
    if (utf8 != NULL)
        memcpy(to, utf8, (size_t)count);
    Py_XDECREF(object);
    Py_XDECREF(text);
    return utf8 == NULL ? NULL : to + count;
}

char *write_real(char *to, double number)
{
    double size = fabs(number);
    if (!(size < WHOLE_BELOW) || (size < TEN(LEAST_POWER) && size != 0.0))
        return write_by_python(to, number);
    char *begin = to;
    if (signbit(number))
        *to++ = '-';
    if (size == (double)(uint64_t)size) {
        to = write_digits(to, (uint64_t)size);
        memcpy(to, ".0", 2);
        return to + 2;
    }
    int point = LEAST_POWER + 1;
    while (size >= TEN(point))
        point++;
    /* Is it a decimal of at most 15 digits? Number and product together are off by less than a half of the last one;
     * both sides of the quotient are exact, so that it is rounded once, as the decimal is where it is read. */
    int places = PLACES - point;
    double scaled = rint(size * TEN(places));
    if (scaled / TEN(places) == size)
        return write_places(to, (uint64_t)scaled, places);
#ifdef __SIZEOF_INT128__
    uint64_t digits;
    if (long_digits(size, point, &digits, &places))
        return write_places(to, digits, places);
#endif
    return write_by_python(begin, number);
}
