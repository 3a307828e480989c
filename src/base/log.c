#include "base/log.h"

#include "base/text.h"

#include <stdarg.h>

void vd_log_line(const vd_log *log, vd_log_level level, const char *format, ...) {
    if (!log || !log->write || level > log->level)
        return;
    char line[VD_LINE_CAP];
    va_list arguments;
    va_start(arguments, format);
    vd_format_escaped(line, sizeof line, format, arguments);
    va_end(arguments);
    log->write(log->user, level, line);
}
