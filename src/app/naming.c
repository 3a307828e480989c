#include "app/naming.h"

#include "base/file.h"
#include "base/text.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* How the formats that people ask for end. */
static const struct {
    const char *extension, *format;
} extensions[] = {{"mp4", "mp4"}, {"gif", "gif"}, {"png", "png"}, {"safetensors", "latents"}};

static bool looks_like_extension(const char *text) {
    size_t length = strlen(text);
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]))
            return false;
    return length >= 2 && length <= 5 && isalpha((unsigned char)text[0]);
}

vd_code vd_name_format(const char *template, size_t *length, const vd_format **format, vd_error *err) {
    const char *slash = strrchr(template, '/'), *name = slash ? slash + 1 : template;
    const char *dot = strrchr(name, '.');
    *length = strlen(template);
    *format = NULL;
    if (!dot || dot == name)
        return VD_OK;
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) {
        if (strcasecmp(dot + 1, extensions[i].extension) != 0)
            continue;
        *format = vd_format_find(extensions[i].format);
        if (!*format)
            return vd_fail(err, VD_ERR_USAGE, "'%.200s': this build writes no %s; it has %s", template,
                           extensions[i].format, vd_format_list());
        *length = (size_t)(dot - template);
        return VD_OK;
    }
    if (looks_like_extension(dot + 1))
        return vd_fail(err, VD_ERR_USAGE,
                       "'%.200s': unknown format '%s'; end in .mp4, .gif, .png or .safetensors", template,
                       dot);
    return VD_OK;
}

static void add_stem(vd_text *t, const char *image) {
    const char *slash = image ? strrchr(image, '/') : NULL, *name = slash   ? slash + 1
                                                                    : image ? image
                                                                            : "latents";
    const char *dot = strrchr(name, '.');
    vd_text_add_bytes(t, name, dot && dot != name ? (size_t)(dot - name) : strlen(name));
}

/* Adds what stands for the field of which `name` is the text after '{'; its length with the '}', 0 when
 * unknown. */
static size_t add_field(vd_text *t, const char *name, size_t available, const vd_name_fields *fields) {
    static const char *const names[] = {"stem}", "seed}", "index}", "gpus}"};
    size_t i = 0;
    while (i < 4 && (strlen(names[i]) > available || strncmp(name, names[i], strlen(names[i])) != 0))
        i++;
    switch (i) {
    case 0:
        add_stem(t, fields->image);
        break;
    case 1:
        vd_text_add(t, "%" PRIu64, fields->seed);
        break;
    case 2:
        vd_text_add(t, "%03d", fields->index);
        break;
    case 3:
        vd_text_add(t, "%d", fields->gpus);
        break;
    default:
        return 0;
    }
    return strlen(names[i]);
}

static vd_code expand(const char *template, size_t length, const vd_name_fields *fields, vd_text *t,
                      vd_error *err) {
    for (size_t i = 0; i < length;) {
        const char *at = template + i;
        bool doubled = (*at == '{' || *at == '}') && i + 1 < length && at[1] == *at;
        size_t used = 1;
        if (*at == '{' && !doubled)
            used += add_field(t, at + 1, length - i - 1, fields);
        else
            vd_text_add_bytes(t, at, 1);
        if ((*at == '{' || *at == '}') && !doubled && used == 1)
            return vd_fail(err, VD_ERR_USAGE,
                           "'%.200s': brace at column %zu is no field; there are {stem} {seed} {index} "
                           "{gpus}, and {{ }} "
                           "for braces",
                           template, i + 1);
        i += used + doubled;
    }
    return VD_OK;
}

/* Leaves out "./" and doubled slashes, in place. */
static void simplify(char *path) {
    char *out = path;
    for (const char *in = path; *in;) {
        bool starts_part = out == path || out[-1] == '/';
        if (starts_part && in[0] == '.' && in[1] == '/')
            in += 2;
        else if (starts_part && out != path && *in == '/')
            in++;
        else
            *out++ = *in++;
    }
    *out = '\0';
}

static vd_code copy_path(const vd_text *t, const char *template, char *out, vd_error *err) {
    const char *slash = t->text ? strrchr(t->text, '/') : NULL;
    if (t->length == 0 || (slash && slash[1] == '\0'))
        return vd_fail(err, VD_ERR_USAGE,
                       "'%.200s' names no file; end it with a name, as in {stem}-s{seed}.mp4", template);
    if (t->length + 32 >= VD_PATH_CAP) /* room for extensions */
        return vd_fail(err, VD_ERR_CANNOT_CREATE, "output path of %zu bytes is too long: '%.100s...'",
                       t->length, t->text);
    memcpy(out, t->text, t->length + 1);
    simplify(out);
    return VD_OK;
}

vd_code vd_name_expand(const char *folder, const char *template, size_t length, const vd_name_fields *fields,
                       char *out, vd_error *err) {
    vd_text t = {0};
    if (folder && *folder && *template != '/')
        vd_text_add(&t, "%s/", folder);
    vd_code code = expand(template, length, fields, &t, err);
    if (code == VD_OK)
        code = t.failed ? vd_fail_memory(err, "an output name", length) : copy_path(&t, template, out, err);
    vd_text_free(&t);
    return code;
}
