#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for `count` more bytes and the terminator. */
static bool reserve(vd_text *t, size_t count) {
    if (t->failed || count >= SIZE_MAX / 2 - t->length)
        return !(t->failed = true);
    size_t needed = t->length + count + 1;
    if (needed <= t->capacity)
        return true;
    size_t capacity = t->capacity < 64 ? 64 : t->capacity;
    while (capacity < needed)
        capacity *= 2;
    char *text = realloc(t->text, capacity);
    if (!text)
        return !(t->failed = true);
    t->text = text;
    t->capacity = capacity;
    return true;
}

void vd_text_add(vd_text *t, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    if (length < 0)
        t->failed = true;
    else if (reserve(t, (size_t)length))
        t->length += (size_t)vsnprintf(t->text + t->length, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
}

void vd_text_add_bytes(vd_text *t, const char *bytes, size_t count) {
    if (!reserve(t, count))
        return;
    if (count > 0)
        memcpy(t->text + t->length, bytes, count);
    t->length += count;
    t->text[t->length] = '\0';
}

void vd_text_free(vd_text *t) {
    free(t->text);
    *t = (vd_text){0};
}

/* Length of the well-formed UTF-8 sequence at `s` (RFC 3629: no surrogates, no overlong forms), 0 if
 * malformed. */
static size_t decode_utf8(const unsigned char *s, size_t available, uint32_t *character) {
    size_t length = s[0] < 0x80   ? 1
                    : s[0] < 0xc2 ? 0
                    : s[0] < 0xe0 ? 2
                    : s[0] < 0xf0 ? 3
                    : s[0] < 0xf5 ? 4
                                  : 0;
    if (length == 0 || length > available)
        return 0;
    uint32_t c = length == 1 ? s[0] : s[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < smallest[length] || (c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff)
        return 0;
    *character = c;
    return length;
}

/* Controls (C0, DEL, C1), line and paragraph separators, and the characters that reorder a terminal line. */
static bool is_harmful(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069);
}

char *vd_escape(char *out, size_t cap, const char *in, size_t in_length) {
    const unsigned char *s = (const unsigned char *)in;
    size_t used = 0;
    for (size_t i = 0; i < in_length;) {
        uint32_t c = 0;
        size_t length = decode_utf8(s + i, in_length - i, &c);
        bool plain = length > 0 && !is_harmful(c);
        length = length > 0 ? length : 1;
        size_t width = plain ? length : 4 * length;
        if (used + width >= cap)
            break;
        if (plain)
            memcpy(out + used, s + i, length);
        else
            for (size_t k = 0; k < length; k++)
                snprintf(out + used + 4 * k, 5, "\\x%02x", s[i + k]);
        used += width;
        i += length;
    }
    out[used] = '\0';
    return out;
}

char *vd_format_escaped(char *out, size_t cap, const char *format, va_list arguments) {
    char raw[VD_LINE_CAP + 4]; /* a character cut at its end starts behind what `out` can hold */
    int length = vsnprintf(raw, sizeof raw, format, arguments);
    size_t count = length < 0 ? 0 : (size_t)length < sizeof raw ? (size_t)length : sizeof raw - 1;
    return vd_escape(out, cap < VD_LINE_CAP ? cap : VD_LINE_CAP, raw, count);
}

bool vd_parse_u64(const char *s, uint64_t *out) {
    uint64_t value = 0;
    if (*s == '\0')
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*s - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

bool vd_parse_i64(const char *s, int64_t *out) {
    bool negative = *s == '-';
    uint64_t magnitude;
    if (!vd_parse_u64(s + negative, &magnitude) || magnitude > (uint64_t)INT64_MAX + negative)
        return false;
    *out = (int64_t)(negative ? -magnitude : magnitude);
    return true;
}

bool vd_parse_double(const char *s, double *out) {
    /* strtod alone would take blanks, hexadecimal, "inf" and "nan". */
    if (*s == '\0' || s[strspn(s, "0123456789+-.eE")] != '\0')
        return false;
    char *end;
    double value = strtod(s, &end);
    if (*end != '\0' || !isfinite(value))
        return false;
    *out = value;
    return true;
}

char *vd_human_bytes(char *out, size_t cap, uint64_t bytes) {
    static const char units[][3] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 999.5; unit++)
        value /= 1000;
    snprintf(out, cap, "%.*f %s", unit > 0 && value < 9.95 ? 1 : 0, value, units[unit]);
    return out;
}
