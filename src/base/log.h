/* Talk goes through a sink that the application owns; library code never prints. */
#ifndef VD_BASE_LOG_H
#define VD_BASE_LOG_H

typedef enum vd_log_level { VD_LOG_ERROR, VD_LOG_WARNING, VD_LOG_INFO, VD_LOG_DEBUG } vd_log_level;

/* Called from any thread, one whole line at a time without newline. */
typedef void (*vd_log_fn)(void *user, vd_log_level level, const char *line);

typedef struct vd_log {
    vd_log_fn write; /* NULL discards everything */
    void *user;
    vd_log_level level; /* lines above this level are dropped before formatting */
} vd_log;

/* `log` may be NULL. Control characters in the result are escaped. */
void vd_log_line(const vd_log *log, vd_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
