/* Strings: a growing buffer, escaping of untrusted text, and numbers read strictly. */
#ifndef VD_BASE_TEXT_H
#define VD_BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing string. Zero-initialise; `text` is NUL-terminated once anything was added (NULL before).
 * Out of memory sets `failed` and later additions are ignored: check once at the end. */
typedef struct vd_text {
    char *text;
    size_t length, capacity;
    bool failed;
} vd_text;

void vd_text_add(vd_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void vd_text_add_bytes(vd_text *t, const char *bytes, size_t count);
void vd_text_free(vd_text *t);

/* Writes `in` to `out` (capacity `cap` > 0, always terminated, cut between characters) with control
 * characters, line separators, direction overrides and invalid UTF-8 as \xNN, so that untrusted names cannot
 * inject terminal escapes or log lines. Escaping twice changes nothing more. Returns `out`. */
char *vd_escape(char *out, size_t cap, const char *in, size_t in_length);

enum { VD_LINE_CAP = 2048 };

/* Formats, then escapes. At most VD_LINE_CAP bytes, whatever `cap` is. Returns `out`. */
char *vd_format_escaped(char *out, size_t cap, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

/* Strict decimal numbers: the whole string, no blanks, in range; false otherwise. */
bool vd_parse_i64(const char *s, int64_t *out);
bool vd_parse_u64(const char *s, uint64_t *out);
bool vd_parse_double(const char *s, double *out); /* finite only */

/* "1.2 GB", "340 MB", "12 kB": for people. Returns `out`. */
char *vd_human_bytes(char *out, size_t cap, uint64_t bytes);

#endif
