/* From --model to a folder: given folders, and the layout of the Hugging Face cache under each of its
 * variables. */
#include "model/folder.h"
#include "model/hub.h"

enum { COMMITS = 2 };
static const char *const commits[COMMITS] = {"9cf024d5bfa8f56622af86c884f26a52f6676f2e",
                                             "0123456789abcdef0123456789abcdef01234567"};

static void clear_environment(void) {
    const char *const names[] = {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"};
    for (int i = 0; i < 4; i++)
        unsetenv(names[i]);
}

/* A cache below `hub` (in f) with two snapshots, of which main is the first. */
static void make_cache(const folder *f, const char *hub) {
    char path[256];
    for (int i = 0; i < COMMITS; i++) {
        snprintf(path, sizeof path, "%s/models--Org-1--svd.xt/snapshots/%s/model_index.json", hub,
                 commits[i]);
        folder_text(f, path, "{}");
    }
    snprintf(path, sizeof path, "%s/models--Org-1--svd.xt/refs/main", hub);
    folder_text(f, path, commits[0]);
    snprintf(path, sizeof path, "%s/models--Org-1--svd.xt/refs/refs/pr/1", hub);
    folder_text(f, path, commits[1]);
    snprintf(path, sizeof path, "%s/models--Org-1--partial/refs/main", hub);
    folder_text(f, path, commits[0]);
    snprintf(path, sizeof path, "%s/models--Org-1--partial/snapshots/%s/README.md", hub, commits[0]);
    folder_text(f, path, "");
    snprintf(path, sizeof path, "%s/models--Org-1--evil/refs/main", hub);
    folder_text(f, path, "../../models--Org-1--svd.xt/snapshots/0123456789abcdef0123456789abcdef01234567");
}

static void expect_snapshot(const char *model, const char *commit) {
    char found[VD_PATH_CAP];
    vd_error err;
    if (vd_hub_resolve(model, found, sizeof found, &err) != VD_OK)
        fail_msg("%s: %s", model, err.message);
    assert_string_equal(strrchr(found, '/') + 1, commit);
    assert_true(vd_hub_has(model));
}

/* Each variable by itself; then all four, where the first wins. */
static void test_places(void **state) {
    (void)state;
    static const char *const places[][3] = {
        /* variable, its value below the test's folder, the cache below it */
        {"HOME", "home", "home/.cache/huggingface/hub"},
        {"XDG_CACHE_HOME", "xdg", "xdg/huggingface/hub"},
        {"HF_HOME", "hf", "hf/hub"},
        {"HF_HUB_CACHE", "hub", "hub"},
    };
    folder f = folder_make();
    clear_environment();
    assert_false(vd_hub_has("Org-1/svd.xt"));
    for (int i = 0; i < 4; i++) {
        setenv(places[i][0], folder_path(&f, places[i][1]), 1);
        assert_false(vd_hub_has("Org-1/svd.xt")); /* this place counts now, and is empty */
        make_cache(&f, places[i][2]);
        expect_snapshot("Org-1/svd.xt", commits[0]);
    }
    setenv("HF_HUB_CACHE", "", 1); /* as if unset */
    expect_snapshot("Org-1/svd.xt", commits[0]);
    folder_remove(&f);
}

static void test_revisions(void **state) {
    (void)state;
    folder f = folder_make();
    clear_environment();
    setenv("HF_HUB_CACHE", f.path, 1);
    make_cache(&f, ".");
    expect_snapshot("Org-1/svd.xt@main", commits[0]);
    expect_snapshot("Org-1/svd.xt@refs/pr/1", commits[1]);
    expect_snapshot("Org-1/svd.xt@0123456789abcdef0123456789abcdef01234567", commits[1]);
    const char *const absent[] = {"Org-1/svd.xt@other", "Org-1/svd.xt@", "Org-1/svd.xt@../x", "Org-1/partial",
                                  "Org-1/evil",         "Org-1/absent",  "org-1/svd.xt",      "svd.xt",
                                  "Org-1/svd.xt/x",     "../svd.xt",     "Org-1/..",          ""};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        if (vd_hub_has(absent[i]))
            fail_msg("'%s' was found", absent[i]);
    folder_remove(&f);
}

static void refuse(const char *model, vd_code expected, const char *reason) {
    char found[VD_PATH_CAP];
    vd_error err = {0};
    vd_code code = vd_hub_resolve(model, found, sizeof found, &err);
    check_refusal(model, code, expected, &err, model, reason, 0);
}

static void test_messages(void **state) {
    (void)state;
    folder f = folder_make();
    clear_environment();
    setenv("HF_HUB_CACHE", f.path, 1);
    make_cache(&f, ".");
    refuse("Org-1/absent", VD_ERR_NO_INPUT, "https://huggingface.co/Org-1/absent");
    refuse("Org-1/absent", VD_ERR_NO_INPUT, "hf auth login");
    refuse("Org-1/absent", VD_ERR_NO_INPUT, "hf download Org-1/absent --include");
    refuse("Org-1/absent", VD_ERR_NO_INPUT, "--model DIR");
    refuse("Org-1/absent", VD_ERR_NO_INPUT, f.path);
    refuse("Org-1/absent@v2", VD_ERR_NO_INPUT, "hf download Org-1/absent --revision v2 --include");
    refuse("Org-1/partial", VD_ERR_NO_INPUT, "hf download");
    refuse("/no/such/folder", VD_ERR_NO_INPUT, "no such folder");
    refuse("", VD_ERR_NO_INPUT, "no such folder");
    refuse(f.path, VD_ERR_NO_INPUT, "no model_index.json");
    folder_text(&f, "svd_xt.safetensors", "");
    refuse(folder_path(&f, "svd_xt.safetensors"), VD_ERR_DATA, "single file");
    refuse(folder_path(&f, "absent.ckpt"), VD_ERR_NO_INPUT, "no such folder");
    folder_remove(&f);
}

static void test_folders(void **state) {
    (void)state;
    folder f = folder_make();
    char resolved[VD_PATH_CAP];
    vd_error err;
    folder_text(&f, "a/b/model_index.json", "{}");
    assert_int_equal(vd_hub_resolve(folder_path(&f, "a/b"), resolved, sizeof resolved, &err), VD_OK);
    assert_string_equal(resolved, folder_path(&f, "a/b"));
    assert_int_equal(vd_hub_resolve(folder_path(&f, "a/b"), resolved, 8, &err), VD_ERR_NO_INPUT);

    /* A folder named like ORG/NAME is taken before the cache. */
    char here[VD_PATH_CAP];
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(f.path), 0);
    assert_int_equal(vd_hub_resolve("a/b", resolved, sizeof resolved, &err), VD_OK);
    assert_string_equal(resolved, "a/b");
    assert_int_equal(chdir(here), 0);
    folder_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_revisions),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
