/* What people see while samples are made: on stderr only. Log lines and the rows of the devices share it. */
#ifndef VD_APP_SCREEN_H
#define VD_APP_SCREEN_H

#include "app/options.h"

#include <pthread.h>

typedef struct vd_screen {
    pthread_mutex_t lock; /* log lines come from any thread */
    FILE *file;
    bool rows; /* one row per device and a total, redrawn; else a line per finished sample */
    bool quiet, colour;
    int drawn;  /* rows on the terminal now */
    int failed; /* samples seen to fail so far */
} vd_screen;

void vd_screen_open(vd_screen *s, const vd_options *options);
void vd_screen_clear(vd_screen *s); /* takes the rows away */
void vd_screen_close(vd_screen *s);

/* `level` as in vdpp_options; from any thread. */
void vd_screen_log(vd_screen *s, int level, const char *line);
void vd_screen_progress(vd_screen *s, const vdpp_progress *progress);

#endif
