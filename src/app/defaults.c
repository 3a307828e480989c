#include "app/defaults.h"

#include "model/hub.h"

#include <dirent.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REAL_MODEL "stabilityai/stable-video-diffusion-img2vid-xt"

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

/* "cuda:0,cuda:1" */
static vd_code split_names(const char *list, vd_device_names *out, vd_error *err) {
    int count = 0;
    for (const char *at = list; at; at = *at ? at + 1 : NULL) {
        size_t length = strcspn(at, ",");
        if (count == VD_DEVICE_LIMIT)
            return vd_fail(err, VD_ERR_USAGE, "--devices: more than %d", VD_DEVICE_LIMIT);
        if (length >= sizeof *out->list.names)
            return vd_fail(err, VD_ERR_USAGE, "--devices: '%.40s' is no device; write cuda:0,cuda:1 or cpu:0",
                           at);
        snprintf(out->list.names[count], sizeof *out->list.names, "%.*s", (int)length, at);
        out->names[count] = out->list.names[count];
        count++;
        at += length;
    }
    out->list.count = count;
    return VD_OK;
}

vd_code vd_choose_devices(const vd_options *options, vd_device_names *out, vd_error *err) {
    vdpp_options asked;
    vdpp_error failure;
    vdpp_options_init(&asked);
    if (options->devices && options->gpus.count > 0)
        return vd_fail(err, VD_ERR_USAGE, "--devices and --gpus both say which devices; give one of them");
    if (options->devices)
        VD_TRY(split_names(options->devices, out, err));
    asked.device = options->device ? options->device : asked.device;
    asked.devices = options->devices ? out->names : NULL;
    asked.gpus = options->gpus.count > 1 ? options->gpus.values : NULL;
    asked.device_count = options->devices ? out->list.count : vd_device_count(options, asked.device_count);
    asked.cuda_module = options->cuda_module;
    if (vdpp_choose_devices(&asked, &out->list, &failure) != 0)
        return vd_fail(err, (vd_code)failure.code, "%s", failure.message);
    for (int i = 0; i < out->list.count; i++)
        out->names[i] = out->list.names[i];
    return VD_OK;
}

bool vd_default_cache(char *out) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = 0;
    if (cache && *cache == '/')
        length = snprintf(out, VD_PATH_CAP, "%s/vdpp", cache);
    else if (home && *home == '/')
        length = snprintf(out, VD_PATH_CAP, "%s/.cache/vdpp", home);
    return length > 0 && length < VD_PATH_CAP;
}
