/* The program from outside on a machine with four GPUs: the fake ones of cuda/fake, of which cuda:3 has no
 * peer access and whatever cuda:1 copies straight to cuda:2 arrives damaged. */
#include "app/shell.h"

#include <jansson.h>

#define TINY "$V --latent-shape 1 4 1 8 8 --steps 2 --guidance 1 -q -y -o tiny "

static void test_devices(void **state) {
    (void)state;
    expect("$V devices >devices.txt; grep -c '^cuda:[0-3] *Fake GPU' devices.txt", 0, "4", "");
    expect("grep 'cuda:1 .*peer .*- .*damaged .*staged' devices.txt", 0, "GB/s", "");
    expect("$V devices --format json >devices.json", 0, "", "");
    json_error_t where;
    json_t *all = json_load_file("devices.json", 0, &where);
    assert_non_null(all);
    assert_string_equal(json_string_value(json_object_get(all, "kind")), "cuda");
    assert_int_equal(json_array_size(json_object_get(all, "devices")), 4);
    assert_int_equal(json_array_size(json_object_get(all, "links")), 12);
    json_decref(all);
    expect("$V devices --device cpu", 0, "Virtual devices", "");
}

static void test_doctor(void **state) {
    (void)state;
    expect("$V doctor", 0, "ok    driver    for CUDA 13.", "");
    expect("$V doctor", 0, "ok    cuda:3 ", "");
}

static void test_refusals(void **state) {
    (void)state;
    expect(TINY "--gpus 5", 69, "", "--gpus 5: this machine has 4");
    expect(TINY "--gpus 0,4", 69, "", "no GPU cuda:4");
    expect(TINY "--devices cuda:0,cuda:9", 69, "", "no GPU cuda:9");
    expect("test ! -e tiny.safetensors", 0, "", "");
}

static void test_memory_plan(void **state) {
    (void)state;
    expect(TINY "--dry-run --gpus 2", 0, " free\n", "");
    expect(TINY "--dry-run --devices cuda:0,cuda:0", 0, "cuda:0.1", "");
    expect("$V -W 8192 -H 8192 --gpus 1 --dry-run --format png", 69, NULL, "of memory on cuda:0 and ");
}

/* What a device takes, weights and all, is what the plan says; its kernels are told. */
static void test_peak(void **state) {
    (void)state;
    json_error_t where;
    expect("$V --latent-shape 1 4 1 8 8 --steps 2 --guidance 1 -y -o tiny -v --gpus 2 --report r.json", 0,
           NULL, "kernel of conv: loops");
    json_t *report = json_load_file("r.json", 0, &where);
    assert_non_null(report);
    for (size_t i = 0; i < 2; i++) {
        const json_t *device = json_array_get(json_object_get(report, "devices"), i);
        json_int_t planned = json_integer_value(json_object_get(device, "planned_bytes")),
                   peak = json_integer_value(json_object_get(device, "peak_bytes"));
        assert_in_range(peak, planned - 64 * 256, planned); /* each buffer rounded up by itself */
    }
    json_decref(report);
}

/* Which way a hand-off goes stands in the report, and --p2p has its say. */
static void check_link(const char *command, const char *route, bool damaged) {
    json_error_t where;
    expect(command, 0, NULL, NULL);
    json_t *report = json_load_file("r.json", 0, &where);
    assert_non_null(report);
    const json_t *link = json_array_get(json_object_get(report, "links"), 0);
    assert_string_equal(json_string_value(json_object_get(link, "route")), route);
    assert_int_equal(json_is_true(json_object_get(link, "damaged")), damaged);
    json_decref(report);
}

static void test_runs(void **state) {
    (void)state;
    check_link(TINY "--gpus 2 --report r.json", "peer", false);
    expect("cksum tiny.safetensors >first", 0, "", "");
    check_link(TINY "--gpus 2 --report r.json --p2p off", "staged", false);
    expect("cksum tiny.safetensors | cmp - first", 0, "", "");
    check_link(TINY "--gpus 1,2 --report r.json", "staged", true);
    expect("cksum tiny.safetensors | cmp - first", 0, "", "");
    expect("$V --latent-shape 1 4 1 8 8 --steps 2 --guidance 1 -y -o tiny --gpus 2,3", 0, NULL,
           "cuda:2 to cuda:3: no peer access");
    expect("cksum tiny.safetensors | cmp - first", 0, "", "");
    expect(TINY "--devices cuda:0,cuda:0", 0, "tiny.safetensors", "");
    expect("cksum tiny.safetensors | cmp - first", 0, "", "");
}

static int enter(void **state) {
    return enter_folder(state) || setenv("VDPP_CUDA_MODULE", FAKE_MODULE, 1) != 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_devices),  cmocka_unit_test(test_doctor),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_memory_plan),
                                       cmocka_unit_test(test_peak),     cmocka_unit_test(test_runs)};
    return cmocka_run_group_tests(tests, enter, leave_folder);
}
