/* Numbers and times as decimal text. */
#ifndef OTEL_TRAIN_DECIMAL_H
#define OTEL_TRAIN_DECIMAL_H

#include "core.h"

#define MOST_DIGITS 20 /* bytes of an int64, with its sign */
#define MOST_REAL 24   /* bytes of a finite float64 */
#define TIME_BYTES 30

/* Write a number and return the byte after it. */
char *write_whole(char *to, int64_t number);
/* Write a finite number as Python's repr does: the shortest text that reads as it, of those the nearest. NULL with an
 * error set where that is not possible. */
char *write_real(char *to, double number);
/* Write a time since 1970 in UTC, with all its nanoseconds, as RFC 3339 has it. */
char *write_time(char *to, int64_t time_ns);

#endif
