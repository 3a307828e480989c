/* What stands in for options that were not given: the samples that ship with the project, and the devices. */
#ifndef VD_APP_DEFAULTS_H
#define VD_APP_DEFAULTS_H

#include "app/options.h"
#include "base/file.h"

/* Of the first PNG of the samples; false when there is none. `out` has VD_PATH_CAP bytes. */
bool vd_default_image(char *out);

/* The sample model; VD_ERR_NO_INPUT names the command that fetches a real one. `out` has VD_PATH_CAP bytes.
 */
vd_code vd_default_model(char *out, vd_error *err);

/* One line on how to get from the sample model to the real one. */
const char *vd_real_model_hint(void);

typedef struct vd_device_names {
    vdpp_device_list list;
    const char *names[VD_DEVICE_LIMIT]; /* each points into `list` */
} vd_device_names;

/* From --device, --devices, --gpus and --split. VD_ERR_UNAVAILABLE when what was asked for is not there. */
vd_code vd_choose_devices(const vd_options *options, vd_device_names *out, vd_error *err);

/* How many devices --gpus or --split ask for; `otherwise` when neither says. */
int vd_device_count(const vd_options *options, int otherwise);

/* Where what tuning finds is kept: vdpp in XDG_CACHE_HOME or ~/.cache; false when there is neither. `out` has
 * VD_PATH_CAP bytes. */
bool vd_default_cache(char *out);

#endif
