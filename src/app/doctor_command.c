#include "app/commands.h"

#include "app/defaults.h"
#include "app/hardware.h"
#include "base/machine.h"
#include "base/text.h"
#include "media/writer.h"
#include "model/hub.h"
#include "model/networks.h"

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Below these a line is a warning: a batch of small videos, and the small model's run. */
static const uint64_t little_space = 1ull << 30, little_memory = 1ull << 30;

typedef struct doctor {
    const vd_options *options;
    FILE *out;
    int failed;
    vd_code code; /* of the first failure */
} doctor;

typedef enum verdict { FINE, DOUBT, FAULT } verdict;

/* One line; `code` is that of a fault. */
static void tell(doctor *d, verdict v, vd_code code, const char *what, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static void tell(doctor *d, verdict v, vd_code code, const char *what, const char *format, ...) {
    static const char *const words[] = {[FINE] = "ok", [DOUBT] = "warn", [FAULT] = "fail"};
    char line[VD_LINE_CAP];
    va_list arguments;
    va_start(arguments, format);
    vd_format_escaped(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(d->out, "%-4s  %-8s  %s\n", words[v], what, line);
    if (v != FAULT)
        return;
    if (d->failed++ == 0)
        d->code = code;
}

/* ---- GPUs ---- */

static bool reads_as(const char *device, const char *file, const char *text) {
    char path[300], found[16] = "";
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%.200s/%s", device, file);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool same = fgets(found, sizeof found, f) && strncmp(found, text, strlen(text)) == 0;
    fclose(f);
    return same;
}

/* The bus id of the first display device of NVIDIA's; false: none is plugged in. */
static bool find_card(char *bus, size_t cap) {
    DIR *folder = opendir("/sys/bus/pci/devices");
    bool found = false;
    for (struct dirent *e; folder && !found && (e = readdir(folder));) {
        found = reads_as(e->d_name, "vendor", "0x10de") && reads_as(e->d_name, "class", "0x03");
        if (found)
            snprintf(bus, cap, "%.31s", e->d_name);
    }
    if (folder)
        closedir(folder);
    return found;
}

static void check_driver(doctor *d, const vd_backend *b) {
    char driver[16], runtime[16];
    snprintf(driver, sizeof driver, "%d.%d", b->driver / 1000, b->driver % 1000 / 10);
    snprintf(runtime, sizeof runtime, "%d.%d", b->runtime / 1000, b->runtime % 1000 / 10);
    if (b->driver / 1000 < b->runtime / 1000)
        tell(d, FAULT, VD_ERR_UNAVAILABLE, "driver",
             "for CUDA %s, older than the runtime's %s: update the driver", driver, runtime);
    else
        tell(d, FINE, VD_OK, "driver", "for CUDA %s", driver);
    tell(d, FINE, VD_OK, "runtime", "CUDA %s", runtime);
    tell(d, FINE, VD_OK, "cuDNN", "%d.%d.%d", b->cudnn / 10000, b->cudnn / 100 % 100, b->cudnn % 100);
}

static void check_cards(doctor *d, const vd_backend *b) {
    for (int i = 0; i < b->table->count(b); i++) {
        vd_device_info info;
        vd_error error;
        char memory[32];
        if (b->table->describe(b, i, &info, &error) == VD_OK)
            tell(d, FINE, VD_OK, info.name, "%s at %s, %s", info.model, info.bus,
                 vd_human_bytes(memory, sizeof memory, info.memory));
        else
            tell(d, FAULT, VD_ERR_UNAVAILABLE, "GPU", "%s", error.message);
    }
}

static void check_gpus(doctor *d) {
    vd_hardware h;
    vd_error error;
    char bus[32];
    if (vd_hardware_open(d->options, &h, &error) != VD_OK)
        tell(d, FAULT, error.code, "GPU", "%s", error.message);
    else if (h.gpus) {
        check_driver(d, h.backend);
        check_cards(d, h.backend);
    } else if (h.why_not[0] && find_card(bus, sizeof bus))
        tell(d, FAULT, VD_ERR_UNAVAILABLE, "GPU", "one is at %s, but cannot be used: %s", bus, h.why_not);
    else if (h.why_not[0])
        tell(d, FINE, VD_OK, "GPU", "none, so virtual CPU devices are used (%s)", h.why_not);
    else
        tell(d, FINE, VD_OK, "GPU", "not asked for: virtual CPU devices are used");
    vd_hardware_close(&h);
}

/* ---- everything else ---- */

static void check_encoders(doctor *d) {
    const vd_format *mp4 = vd_format_find("mp4");
    vd_error error;
    if (!mp4)
        tell(d, DOUBT, VD_OK, "encoders",
             "this build writes no mp4 and gif: install FFmpeg's libraries and build again; it writes %s",
             vd_format_list());
    else if (mp4->check(&error) != VD_OK)
        tell(d, DOUBT, VD_OK, "encoders", "no mp4 and gif: %s", error.message);
    else
        tell(d, FINE, VD_OK, "encoders", "%s", vd_format_list());
}

static void check_model(doctor *d) {
    char sample[VD_PATH_CAP], folder[VD_PATH_CAP];
    const char *name = d->options->model;
    vd_model *model = NULL;
    vd_error error;
    vd_code code = name ? VD_OK : vd_default_model(sample, &error);
    if (code == VD_OK)
        code = vd_hub_resolve(name ? name : sample, folder, sizeof folder, &error);
    if (code == VD_OK)
        code = vd_model_open(folder, NULL, &model, &error);
    if (code != VD_OK)
        tell(d, FAULT, code, "model", "%s", error.message);
    else if (name)
        tell(d, FINE, VD_OK, "model", "%s", folder);
    else
        tell(d, FINE, VD_OK, "model", "the sample model in %s; %s", folder, vd_real_model_hint());
    vd_model_close(model);
}

/* The folder itself or the nearest one above it that exists. */
static void nearest_folder(const char *folder, char *out, size_t cap) {
    snprintf(out, cap, "%s", folder);
    while (access(out, F_OK) != 0) {
        char *slash = strrchr(out, '/');
        if (!slash)
            snprintf(out, cap, ".");
        else
            slash[slash == out] = '\0';
    }
}

static void check_space(doctor *d) {
    const char *wanted = d->options->output_dir ? d->options->output_dir : "out";
    char folder[VD_PATH_CAP], human[32];
    struct statvfs space;
    nearest_folder(wanted, folder, sizeof folder);
    if (access(folder, W_OK | X_OK) != 0 || statvfs(folder, &space) != 0) {
        tell(d, FAULT, VD_ERR_CANNOT_CREATE, "output",
             "'%s' cannot be written to: %s; choose another with --output-dir", folder,
             strerrordesc_np(errno));
        return;
    }
    uint64_t left = (uint64_t)space.f_bavail * space.f_frsize;
    tell(d, left < little_space ? DOUBT : FINE, VD_OK, "output", "%s free for '%s'%s",
         vd_human_bytes(human, sizeof human, left), wanted,
         left < little_space ? ": make room, or choose another with --output-dir" : "");
}

static void check_memory(doctor *d) {
    uint64_t left = vd_machine_available();
    char human[32];
    if (left == 0)
        tell(d, DOUBT, VD_OK, "memory", "the system does not say how much is free");
    else
        tell(d, left < little_memory ? DOUBT : FINE, VD_OK, "memory",
             "%s free; --dry-run says what a run needs", vd_human_bytes(human, sizeof human, left));
}

vd_code vd_doctor_command(const vd_options *options, FILE *out, vd_error *err) {
    doctor d = {.options = options, .out = out};
    check_gpus(&d);
    check_encoders(&d);
    check_model(&d);
    check_space(&d);
    check_memory(&d);
    return d.failed == 0 ? VD_OK
                         : vd_fail(err, d.code, "%d of these checks failed; each says what to do", d.failed);
}
