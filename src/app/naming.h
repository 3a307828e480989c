/* Output templates: {stem} {seed} {index} {gpus}, doubled braces for braces; the extension, if any, picks the
 * format. */
#ifndef VD_APP_NAMING_H
#define VD_APP_NAMING_H

#include "base/error.h"
#include "media/writer.h"

#include <stddef.h>
#include <stdint.h>

typedef struct vd_name_fields {
    const char *image; /* its file name without folder and extension is {stem}; NULL: "latents" */
    uint64_t seed;
    int index; /* of the sample in the run; three digits at least */
    int gpus;
} vd_name_fields;

/* `*length` is that of the template without the extension, `*format` what the extension means, NULL without
 * one. Only a known extension or one of letters that looks like one counts: "v1.2" has none. */
vd_code vd_name_format(const char *template, size_t *length, const vd_format **format, vd_error *err);

/* Expands the first `length` bytes of `template`, below `folder` (NULL or "": none) unless it is absolute,
 * with "./" and doubled slashes left out, so that equal paths are equal strings. `out` has VD_PATH_CAP bytes.
 */
vd_code vd_name_expand(const char *folder, const char *template, size_t length, const vd_name_fields *fields,
                       char *out, vd_error *err);

#endif
