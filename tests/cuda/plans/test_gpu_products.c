/* On a GPU: every plan that the libraries offer for problems like the model's is run and compared with sums
 * in fp64; the first one, which is used when nobody tunes, must be right. What was found best comes back from
 * the cache and is right again. */
#include "model/folder.h"
#include "must.h"

#include "cuda/have_gpu.h"
#include "device/cuda_tune.h"

#include <stdio.h>

enum { WORKSPACE_CAP = 64 << 20 };

#define CONV(...)                                                                                            \
    {                                                                                                        \
        .kind = VD_CUDA_CONV, .conv = {.alpha = 1, __VA_ARGS__ }                                             \
    }
#define SAME(n_, h_, w_, c_, k_) .n = n_, .h = h_, .w = w_, .c = c_, .oh = h_, .ow = w_, .k = k_, .stride = 1
#define THREE .kh = 3, .kw = 3, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1
#define GEMM(m_, k_, n_, ...)                                                                                \
    {                                                                                                        \
        .kind = VD_CUDA_GEMM, .gemm = {.m = m_, .k = k_, .n = n_, .alpha = 1, __VA_ARGS__ }                  \
    }
#define GATE(...)                                                                                            \
    {                                                                                                        \
        .kind = VD_CUDA_GATE, .gate = { __VA_ARGS__ }                                                        \
    }
#define SDPA(batch_, heads_, tokens_, width_, dtype_, scale_)                                                \
    {                                                                                                        \
        .kind = VD_CUDA_SDPA, .sdpa = { batch_, heads_, tokens_, width_, dtype_, scale_ }                    \
    }

static const vd_cuda_problem problems[] = {
    CONV(SAME(4, 36, 64, 640, 640), THREE, .dtype = VD_F16, .bias = true, .add = true),
    CONV(SAME(4, 36, 64, 640, 320), THREE, .dtype = VD_F16, .bias = true),
    CONV(SAME(4, 18, 32, 320, 640), THREE, .dtype = VD_BF16, .bias = true, .add = true),
    CONV(SAME(2, 18, 32, 128, 128), THREE, .dtype = VD_F32, .bias = true, .add = true),
    CONV(SAME(4, 72, 128, 8, 320), THREE, .dtype = VD_F16, .bias = true),
    CONV(SAME(4, 72, 128, 320, 8), THREE, .dtype = VD_F16, .bias = true),
    CONV(SAME(2, 14, 2304, 640, 640), .kh = 3, .kw = 1, .pad_top = 1, .pad_bottom = 1, .dtype = VD_F16,
         .bias = true, .add = true),
    CONV(.n = 4, .h = 36, .w = 64, .c = 640, .oh = 18, .ow = 32, .k = 640, .stride = 2, THREE,
         .dtype = VD_F16, .bias = true),
    CONV(.n = 1, .h = 72, .w = 128, .c = 128, .oh = 36, .ow = 64, .k = 128, .stride = 2, .kh = 3, .kw = 3,
         .pad_bottom = 1, .pad_right = 1, .dtype = VD_F32, .bias = true),
    GEMM(9216, 320, 2560, .runs = 1, .dtype = VD_F16, .out = VD_F16, .bias = true),
    GEMM(9216, 1280, 320, .runs = 1, .dtype = VD_F16, .out = VD_F16, .bias = true, .add = true),
    GEMM(4608, 640, 640, .runs = 2, .dtype = VD_F16, .out = VD_F16, .bias = true, .add = true),
    GEMM(4608, 960, 320, .runs = 1, .dtype = VD_BF16, .out = VD_BF16, .add = true),
    GEMM(1, 320, 1280, .runs = 1, .dtype = VD_F16, .out = VD_F32, .bias = true),
    GEMM(257, 1280, 3840, .runs = 1, .dtype = VD_F32, .out = VD_F32, .bias = true, .add = true),
    GATE(9216, 320, 1280, VD_F16),
    GATE(4608, 640, 2560, VD_BF16),
    GATE(256, 320, 1280, VD_F32),
    SDPA(4, 5, 9216, 64, VD_F16, 0.125f),
    SDPA(8, 20, 144, 64, VD_BF16, 0.125f),
    SDPA(1, 16, 257, 80, VD_F16, 0.111803399f),
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

typedef struct found {
    int tried;
    bool first_right;
} found;

static void note(void *user, const vd_cuda_trial *trial) {
    found *f = user;
    print_message("%-90s %-60s %8.1f us, error %.1e%s\n", trial->problem, trial->plan, trial->seconds * 1e6,
                  trial->error, trial->right ? "" : ", WRONG");
    if (f->tried++ == 0)
        f->first_right = trial->right;
}

static vd_cuda_math *open_math(const folder *cache) {
    vd_cuda_math_request request = {.cache_folder = cache->path, .workspace_cap = WORKSPACE_CAP};
    vd_cuda_math *m;
    must(vd_cuda_math_open(&request, &m, err));
    return m;
}

static void the_first_plan_is_right_and_the_best_comes_back(void **state) {
    (void)state;
    int wrong = 0;
    folder cache = folder_make();
    vd_cuda_math *m = open_math(&cache);
    for (int i = 0; i < PROBLEMS; i++) {
        found f = {0};
        const vd_cuda_tuner tuner = {"cuda:0", note, &f};
        const vd_cuda_plan *best;
        must(vd_cuda_tune(m, &problems[i], &tuner, err));
        wrong += !f.first_right;
        vd_cuda_plans stored = {.items = {vd_cuda_choice_load(m, &problems[i])}, .count = 1};
        assert_non_null(stored.items[0]);
        must(vd_cuda_try(m, &problems[i], &stored, &tuner, &best, err));
        assert_ptr_equal(best, stored.items[0]);
        vd_cuda_plans_close(&stored);
    }
    assert_int_equal(wrong, 0);
    vd_cuda_math_close(m);
    folder_remove(&cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_plan_is_right_and_the_best_comes_back),
    };
    if (!have_gpu())
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
