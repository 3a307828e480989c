#include "app/screen.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BAR = 24 };

void vd_screen_open(vd_screen *s, const vd_options *options) {
    const char *terminal = getenv("TERM"), *when = options->progress ? options->progress : "auto";
    bool able = isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
    const char *plain = getenv("NO_COLOR");
    *s = (vd_screen){.lock = PTHREAD_MUTEX_INITIALIZER, .file = stderr, .quiet = options->quiet};
    s->rows = !options->quiet && (strcmp(when, "on") == 0 || (strcmp(when, "auto") == 0 && able));
    s->colour = able && !(plain && *plain);
}

static void erase(vd_screen *s) {
    if (s->drawn > 0)
        fprintf(s->file, "\x1b[%dA\x1b[J", s->drawn);
    s->drawn = 0;
}

void vd_screen_clear(vd_screen *s) {
    pthread_mutex_lock(&s->lock);
    erase(s);
    pthread_mutex_unlock(&s->lock);
}

void vd_screen_close(vd_screen *s) {
    erase(s);
    pthread_mutex_destroy(&s->lock);
}

void vd_screen_log(vd_screen *s, int level, const char *line) {
    static const char *const prefixes[] = {"vdpp: ", "vdpp: warning: ", "", ""};
    pthread_mutex_lock(&s->lock);
    erase(s);
    fprintf(s->file, "%s%s\n", prefixes[level], line);
    pthread_mutex_unlock(&s->lock);
}

static int columns(const vd_screen *s) {
    struct winsize size;
    return ioctl(fileno(s->file), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
}

static void add_bar(vd_text *t, double share) {
    char bar[BAR + 1];
    int full = (int)(share * BAR);
    for (int i = 0; i < BAR; i++)
        bar[i] = i < full ? '=' : ' ';
    bar[BAR] = '\0';
    vd_text_add(t, "[%s]", bar);
}

static void add_time(vd_text *t, double seconds) {
    long s = (long)(seconds + 0.5);
    if (s >= 3600)
        vd_text_add(t, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        vd_text_add(t, "%ld:%02ld", s / 60, s % 60);
}

static void describe_device(vd_text *t, const vdpp_device_progress *d) {
    vd_text_add(t, "%-8s ", d->name);
    if (d->task == ' ' || d->sample < 0) {
        vd_text_add(t, "idle");
        return;
    }
    vd_text_add(t, "sample %-4d ", d->sample);
    if (d->task == 's') {
        add_bar(t, d->step / (d->last + 1.0));
        vd_text_add(t, " step %d/%d", d->step, d->last + 1);
    } else {
        vd_text_add(t, "%s", d->task == 'e' ? "encoding" : "decoding");
    }
}

static void describe_total(vd_text *t, const vdpp_progress *p) {
    double share = p->steps > 0 ? (double)p->steps_done / (double)p->steps : 0;
    vd_text_add(t, "%-8s %d/%d done  ", "total", p->finished, p->samples);
    add_bar(t, share);
    vd_text_add(t, " %3.0f %%  ", 100 * share);
    add_time(t, p->elapsed_s);
    if (share > 0) {
        vd_text_add(t, "  ETA ");
        add_time(t, p->elapsed_s * (1 - share) / share);
    }
    if (p->failed > 0)
        vd_text_add(t, "  %d failed", p->failed);
}

static void put_row(vd_screen *s, vd_text *t, bool strong) {
    if (!t->failed)
        fprintf(s->file, "%s%.*s%s\x1b[K\n", strong && s->colour ? "\x1b[1m" : "", columns(s), t->text,
                strong && s->colour ? "\x1b[0m" : "");
    s->drawn += !t->failed;
    vd_text_free(t);
}

/* Over the rows that are there, so that nothing flickers. */
static void draw(vd_screen *s, const vdpp_progress *p) {
    if (s->drawn > 0)
        fprintf(s->file, "\x1b[%dA", s->drawn);
    s->drawn = 0;
    for (int i = 0; i < p->device_count; i++) {
        vd_text t = {0};
        describe_device(&t, &p->devices[i]);
        put_row(s, &t, false);
    }
    vd_text total = {0};
    describe_total(&total, p);
    put_row(s, &total, true);
    fflush(s->file);
}

void vd_screen_progress(vd_screen *s, const vdpp_progress *p) {
    bool failed = p->failed > s->failed;
    s->failed = p->failed;
    if (s->quiet)
        return;
    pthread_mutex_lock(&s->lock);
    if (s->rows)
        draw(s, p);
    else if (p->finished_sample >= 0)
        fprintf(s->file, "sample %d %s after %.1f s, %d of %d\n", p->finished_sample,
                failed ? "failed" : "finished", p->elapsed_s, p->finished, p->samples);
    pthread_mutex_unlock(&s->lock);
}
