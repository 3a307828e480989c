/* NVIDIA's libraries are hundreds of megabytes that a machine without GPUs need not have. They stand behind a
 * module that is opened when CUDA is asked for and a driver is there, and then stays: CUDA does not take back
 * what it registers in a process. */
#include "device/cuda_module.h"

#include <dlfcn.h>
#include <stddef.h>

#ifdef VD_HAVE_CUDA
static const char *const built_module = "vdpp_cuda.so"; /* found through the run path of the program */
#else
static const char *const built_module = NULL;
#endif

static vd_code find_driver(vd_error *err) {
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!driver)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "no CUDA here: NVIDIA's driver is not installed (%s)",
                       dlerror());
    dlclose(driver);
    return VD_OK;
}

static vd_code open_module(const char *path, const vd_cuda_request *request, vd_backend **out,
                           vd_error *err) {
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    vd_cuda_entry_fn entry = module ? (vd_cuda_entry_fn)dlsym(module, VD_CUDA_ENTRY) : NULL;
    if (!entry)
        return vd_fail(err, VD_ERR_UNAVAILABLE, "no CUDA here: %s", dlerror());
    return entry(request, out, err);
}

vd_code vd_cuda_backend_open(const vd_cuda_request *request, vd_backend **out, vd_error *err) {
    if (request->module)
        return open_module(request->module, request, out, err);
    if (!built_module)
        return vd_fail(err, VD_ERR_UNAVAILABLE,
                       "this build has no CUDA: its toolkit or cuDNN was not there to build with");
    VD_TRY(find_driver(err));
    return open_module(built_module, request, out, err);
}
