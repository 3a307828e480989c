#include "app/defaults.h"

#include "base/text.h"
#include "base/thread.h"
#include "model/hub.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL_MODEL "stabilityai/stable-video-diffusion-img2vid-xt"

enum { CPU_DEVICES = 8 }; /* virtual devices at most when nobody says how many */

/* "samples/NAME" beside the executable, or where `cmake --install` puts it. */
static bool find_sample(const char *name, char *out) {
    static const char *const places[] = {"samples", "../share/vdpp/samples"};
    char executable[VD_PATH_CAP];
    ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    if (length <= 0)
        return false;
    executable[length] = '\0';
    *strrchr(executable, '/') = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int written = snprintf(out, VD_PATH_CAP, "%s/%s/%s", executable, places[i], name);
        if (written < VD_PATH_CAP && access(out, R_OK) == 0)
            return true;
    }
    return false;
}

static int is_png(const struct dirent *entry) {
    size_t length = strlen(entry->d_name);
    return length > 4 && strcmp(entry->d_name + length - 4, ".png") == 0;
}

bool vd_default_image(char *out) {
    char folder[VD_PATH_CAP];
    struct dirent **entries;
    int count = find_sample("images", folder) ? scandir(folder, &entries, is_png, alphasort) : -1;
    if (count < 0)
        return false;
    bool found = count > 0 && snprintf(out, VD_PATH_CAP, "%s/%s", folder, entries[0]->d_name) < VD_PATH_CAP;
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    return found;
}

const char *vd_real_model_hint(void) {
    return vd_hub_has(REAL_MODEL) ? "the real one is in the cache: add -m " REAL_MODEL
                                  : "for the real one: hf download " REAL_MODEL
                                    " --include '*.[jf][sp]*', then add -m " REAL_MODEL;
}

vd_code vd_default_model(char *out, vd_error *err) {
    return find_sample("model", out)
               ? VD_OK
               : vd_fail(err, VD_ERR_NO_INPUT, "no model is named and the sample model is not installed; %s",
                         vd_real_model_hint());
}

int vd_device_count(const vd_options *options, int otherwise) {
    if (options->gpus.count == 1)
        return options->gpus.values[0];
    return options->gpus.count > 0    ? options->gpus.count
           : options->split.count > 0 ? options->split.count
                                      : otherwise;
}

static bool is_known(const vd_device_names *names, const char *name) {
    for (int i = 0; i < names->count; i++)
        if (strcmp(names->names[i], name) == 0)
            return true;
    return false;
}

static vd_code add(vd_device_names *out, const char *option, const char *name, vd_error *err) {
    if (is_known(out, name))
        return vd_fail(err, VD_ERR_USAGE, "%s names device '%s' twice", option, name);
    if (out->count == VD_DEVICE_LIMIT)
        return vd_fail(err, VD_ERR_USAGE, "%s: more than %d devices", option, VD_DEVICE_LIMIT);
    snprintf(out->text[out->count], sizeof *out->text, "%s", name);
    out->names[out->count] = out->text[out->count];
    out->count++;
    return VD_OK;
}

static vd_code fail_no_cuda(const char *option, vd_error *err) {
    return vd_fail(err, VD_ERR_UNAVAILABLE, "%s: this build has no CUDA backend; use --device cpu", option);
}

/* "cpu:0,cpu:1" */
static vd_code take_names(const char *list, vd_device_names *out, vd_error *err) {
    for (const char *at = list; at;) {
        char name[16];
        const char *comma = strchr(at, ',');
        size_t length = comma ? (size_t)(comma - at) : strlen(at);
        uint64_t number;
        snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), at);
        if (strncmp(name, "cuda:", 5) == 0 && vd_parse_u64(name + 5, &number))
            return fail_no_cuda("--devices", err);
        if (strncmp(name, "cpu:", 4) != 0 || !vd_parse_u64(name + 4, &number) || number > 1023 ||
            length >= sizeof name)
            return vd_fail(err, VD_ERR_USAGE, "--devices: '%s' is no device; write cpu:0,cpu:1", name);
        snprintf(name, sizeof name, "cpu:%d", (int)number);
        VD_TRY(add(out, "--devices", name, err));
        at = comma ? comma + 1 : NULL;
    }
    return VD_OK;
}

/* A count or numbers of devices, all of the CPU kind. */
static vd_code take_numbers(const vd_options *options, vd_device_names *out, vd_error *err) {
    int usable = vd_cpu_count();
    int count = vd_device_count(options, usable < 1 ? 1 : usable < CPU_DEVICES ? usable : CPU_DEVICES);
    if (count < 1 || count > VD_DEVICE_LIMIT)
        return vd_fail(err, VD_ERR_USAGE, "--gpus %d: must be from 1 to %d; nearest: %d", count,
                       VD_DEVICE_LIMIT, count < 1 ? 1 : VD_DEVICE_LIMIT);
    for (int i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "cpu:%d", options->gpus.count > 1 ? options->gpus.values[i] : i);
        VD_TRY(add(out, "--gpus", name, err));
    }
    return VD_OK;
}

vd_code vd_choose_devices(const vd_options *options, vd_device_names *out, vd_error *err) {
    out->count = 0;
    out->fell_back = false;
    if (options->device && strcmp(options->device, "cuda") == 0)
        return fail_no_cuda("--device cuda", err);
    if (options->devices && options->gpus.count > 0)
        return vd_fail(err, VD_ERR_USAGE, "--devices and --gpus both say which devices; give one of them");
    if (options->devices)
        return take_names(options->devices, out, err);
    out->fell_back = !options->device || strcmp(options->device, "auto") == 0;
    return take_numbers(options, out, err);
}
