#include "base/error.h"

#include "base/text.h"

#include <stdarg.h>

vd_code vd_fail(vd_error *err, vd_code code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vd_format_escaped(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    return err->code = code;
}

vd_code vd_fail_in(vd_error *err, const char *format, ...) {
    char context[VD_ERROR_CAP];
    va_list arguments;
    va_start(arguments, format);
    vd_format_escaped(context, sizeof context, format, arguments);
    va_end(arguments);
    return vd_fail(err, err->code, "%s: %s", context, err->message);
}

vd_code vd_fail_memory(vd_error *err, const char *what, unsigned long long bytes) {
    char size[32];
    return vd_fail(err, VD_ERR_UNAVAILABLE, "out of memory: %s needs %s of host memory", what,
                   vd_human_bytes(size, sizeof size, bytes));
}
