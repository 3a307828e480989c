#include "app/options.h"

#include "base/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { NAME_LIMIT = 40 }; /* longer names are not ours */

static bool is_name(const char *name, const char *text, size_t length) {
    return name && strlen(name) == length && memcmp(name, text, length) == 0;
}

const vd_option *vd_option_find(const char *name, size_t length, unsigned where) {
    for (const vd_option *o = vd_option_table; o < vd_option_table + vd_option_count; o++)
        if (o->where & where && (is_name(o->name, name, length) || is_name(o->alias, name, length)))
            return o;
    return NULL;
}

static const vd_option *find_letter(char letter, unsigned where) {
    for (const vd_option *o = vd_option_table; o < vd_option_table + vd_option_count; o++)
        if (o->where & where && o->letter == letter)
            return o;
    return NULL;
}

/* Levenshtein's distance, the row of the matrix kept in place. */
static int distance(const char *a, size_t a_length, const char *b) {
    int row[NAME_LIMIT + 1];
    for (size_t i = 0; i <= a_length; i++)
        row[i] = (int)i;
    for (int k = 1; *b; b++, k++) {
        int diagonal = row[0];
        row[0] = k;
        for (size_t i = 1; i <= a_length; i++) {
            int change = diagonal + (a[i - 1] != *b), skip = (row[i] < row[i - 1] ? row[i] : row[i - 1]) + 1;
            diagonal = row[i];
            row[i] = change < skip ? change : skip;
        }
    }
    return row[a_length];
}

const char *vd_option_nearest(const char *name, size_t length, unsigned where) {
    const char *nearest = NULL;
    if (length > NAME_LIMIT)
        return NULL;
    int least = (int)length / 3 + 1; /* more changes than that is another word */
    for (const vd_option *o = vd_option_table; o < vd_option_table + vd_option_count; o++) {
        const char *names[] = {o->name, o->alias};
        for (int i = 0; i < 2 && o->where & where && !(o->where & VD_HIDDEN); i++) {
            int d = names[i] ? distance(name, length, names[i]) : least + 1;
            if (d < least || (d == least && !nearest)) {
                least = d;
                nearest = names[i];
            }
        }
    }
    return nearest;
}

void vd_options_init(vd_options *options) {
    *options = (vd_options){.stall_timeout_s = -1, .costs = {.step = 1}};
    options->request.samples = 1;
    vdpp_job_init(&options->request.job);
}

void vd_options_free(vd_options *options) {
    free(options->images);
    options->images = NULL;
    options->image_count = 0;
}

/* The walk over the arguments. */
typedef struct scan {
    vd_options *options;
    unsigned where;
    char *const *at, *const *end;
    bool given[VD_OPTION_LIMIT]; /* rows of the table that the arguments set */
    vd_error *err;
} scan;

static vd_code fail_unknown(scan *s, const char *name, size_t length) {
    const char *nearest = vd_option_nearest(name, length, s->where);
    return nearest ? vd_fail(s->err, VD_ERR_USAGE, "unknown option '--%.*s'; did you mean --%s?",
                             (int)(length < 60 ? length : 60), name, nearest)
                   : vd_fail(s->err, VD_ERR_USAGE, "unknown option '--%.*s'; vdpp --help lists them all",
                             (int)(length < 60 ? length : 60), name);
}

static vd_code apply(scan *s, const vd_option *o, const char *const *values) {
    s->given[o - vd_option_table] = true;
    if (o->read(o, values, s->options, s->err) == VD_OK)
        return VD_OK;
    return o->value_count == 1 ? vd_fail_in(s->err, "--%s '%.60s'", o->name, values[0])
                               : vd_fail_in(s->err, "--%s", o->name);
}

/* Reads the values of `o`: `attached` (after '=' or the letter; NULL: none), then following arguments. */
static vd_code take_values(scan *s, const vd_option *o, const char *attached) {
    const char *values[5] = {o->value_count == 0 ? "1" : attached};
    for (int i = attached || o->value_count == 0; i < o->value_count; i++) {
        if (s->at == s->end || strncmp(*s->at, "--", 2) == 0)
            return vd_fail(s->err, VD_ERR_USAGE, "--%s needs %s: %s", o->name,
                           o->value_count == 1 ? "a value" : "5 values", o->value);
        values[i] = *s->at++;
    }
    return apply(s, o, values);
}

static vd_code take_long(scan *s, const char *text) {
    size_t length = strcspn(text, "=");
    const char *attached = text[length] ? text + length + 1 : NULL;
    const vd_option *o = vd_option_find(text, length, s->where);
    if (!o)
        return fail_unknown(s, text, length);
    if (attached && o->value_count != 1)
        return vd_fail(s->err, VD_ERR_USAGE, "--%s='%.60s': %s", o->name, attached,
                       o->value_count == 0 ? "this option takes no value"
                                           : "give the values as separate arguments");
    return take_values(s, o, attached);
}

/* "-yq", "-n5", "-n 5": letters until one takes a value. */
static vd_code take_letters(scan *s, const char *text) {
    for (; *text; text++) {
        const vd_option *o = find_letter(*text, s->where);
        if (!o)
            return vd_fail(s->err, VD_ERR_USAGE, "unknown option '-%.1s'; vdpp --help lists them all", text);
        bool takes_value = o->value_count > 0;
        VD_TRY(take_values(s, o, takes_value && text[1] ? text + 1 : NULL));
        if (takes_value)
            break;
    }
    return VD_OK;
}

static vd_code read_arguments(scan *s) {
    while (s->at < s->end) {
        const char *text = *s->at++;
        if (text[0] != '-' || text[1] == '\0' || strcmp(text, "--") == 0)
            return vd_fail(s->err, VD_ERR_USAGE,
                           "unexpected argument '%.60s'; every value follows an option, as in -i FILE", text);
        VD_TRY(text[1] == '-' ? take_long(s, text + 2) : take_letters(s, text + 1));
    }
    return VD_OK;
}

/* "1" or "0" for the usual spellings; NULL for anything else. */
static const char *switch_value(const char *text) {
    static const char *const words[][2] = {{"1", "0"}, {"on", "off"}, {"yes", "no"}, {"true", "false"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int off = 0; off < 2; off++)
            if (strcasecmp(text, words[i][off]) == 0)
                return words[0][off];
    return NULL;
}

static vd_code read_variable(scan *s, const vd_option *o, const char *name, char *text) {
    const char *values[] = {text};
    if (o->value_count == 0) {
        values[0] = switch_value(text);
        if (!values[0])
            return vd_fail(s->err, VD_ERR_USAGE, "%s='%.60s': must be 1, on, yes, true, 0, off, no or false",
                           name, text);
    }
    vd_code code = o->read(o, values, s->options, s->err);
    return code == VD_OK ? VD_OK : vd_fail_in(s->err, "%s='%.60s'", name, text);
}

static void variable_name(char *out, size_t cap, const vd_option *o) {
    snprintf(out, cap, "VDPP_%s", o->name);
    for (char *c = out; *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

static vd_code read_variables(scan *s, char *(*variable)(const char *name)) {
    for (int i = 0; i < vd_option_count; i++) {
        const vd_option *o = &vd_option_table[i];
        char name[NAME_LIMIT + 8];
        variable_name(name, sizeof name, o);
        char *text =
            o->where & s->where && !(o->where & VD_NO_VARIABLE) && !s->given[i] ? variable(name) : NULL;
        if (text && *text)
            VD_TRY(read_variable(s, o, name, text));
    }
    return VD_OK;
}

vd_code vd_options_parse(vd_options *options, unsigned where, int count, char *const *arguments,
                         char *(*variable)(const char *name), vd_error *err) {
    scan s = {.options = options, .where = where, .at = arguments, .end = arguments + count, .err = err};
    VD_TRY(read_arguments(&s));
    return variable ? read_variables(&s, variable) : VD_OK;
}
