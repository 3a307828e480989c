/* Each test runs in an empty folder of its own, which is the current folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int enter_folder(void **state) {
    char name[] = "/tmp/vdpp-test-XXXXXX";
    if (!mkdtemp(name) || chdir(name) != 0)
        return -1;
    *state = strdup(name);
    return *state ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info, (void)type, (void)where;
    return remove(path);
}

static int leave_folder(void **state) {
    int result = chdir("/") | nftw(*state, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(*state);
    return result;
}

static int entries(const char *folder) {
    DIR *d = opendir(folder);
    assert_non_null(d);
    int count = -2; /* "." and ".." */
    while (readdir(d))
        count++;
    closedir(d);
    return count;
}

static void put(const char *path, const char *text) {
    vd_error err;
    if (vd_file_write(path, text, strlen(text), true, &err) != VD_OK)
        fail_msg("%s", err.message);
}

static void assert_content(const char *path, const char *text) {
    char *bytes;
    size_t count;
    vd_error err;
    if (vd_file_read(path, "file", 1 << 20, &bytes, &count, &err) != VD_OK)
        fail_msg("%s", err.message);
    assert_int_equal(count, strlen(text));
    assert_string_equal(bytes, text);
    free(bytes);
}

static void assert_unreadable(const char *path, size_t limit, vd_code code, const char *message) {
    char *bytes = (char *)1;
    size_t count = 1;
    vd_error err;
    assert_int_equal(vd_file_read(path, "image", limit, &bytes, &count, &err), code);
    assert_null(bytes);
    assert_int_equal(count, 0);
    assert_non_null(strstr(err.message, message));
}

static void reads_whole_files(void **state) {
    (void)state;
    put("empty", "");
    put("five", "12345");
    assert_content("empty", "");
    assert_content("five", "12345");
    assert_unreadable("five", 4, VD_ERR_DATA, "image 'five' is larger than 4 B");
    char *bytes;
    size_t count;
    vd_error err;
    assert_int_equal(vd_file_read("five", "image", 5, &bytes, &count, &err), VD_OK);
    free(bytes);
    assert_int_equal(vd_file_read("/proc/self/status", "file", 1 << 20, &bytes, &count, &err), VD_OK);
    assert_true(count > 100); /* though its size is told as 0 */
    free(bytes);
    assert_unreadable("/proc/self/status", 20, VD_ERR_DATA, "larger than 20 B");
}

static void refuses_other_kinds(void **state) {
    (void)state;
    assert_int_equal(mkfifo("fifo", 0600), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_unreadable("fifo", 100, VD_ERR_NO_INPUT, "image 'fifo' is a FIFO");
    assert_unreadable("socket", 100, VD_ERR_NO_INPUT, "is a socket");
    assert_unreadable(".", 100, VD_ERR_NO_INPUT, "is a folder");
    assert_unreadable("/dev/zero", 100, VD_ERR_NO_INPUT, "is a device");
    assert_unreadable("a\nb", 100, VD_ERR_NO_INPUT, "cannot open image 'a\\x0ab': No such file");
    close(fd);
}

static void reads_at_offsets(void **state) {
    (void)state;
    put("file", "0123456789");
    int fd = open("file", O_RDONLY);
    char bytes[8] = {0};
    vd_error err;
    assert_int_equal(vd_pread_all(fd, bytes, 4, 6, "file", &err), VD_OK);
    assert_string_equal(bytes, "6789");
    assert_int_equal(vd_pread_all(fd, bytes, 0, 1000, "file", &err), VD_OK);
    assert_int_equal(vd_pread_all(fd, bytes, 5, 6, "file", &err), VD_ERR_DATA);
    assert_non_null(strstr(err.message, "'file'"));
    assert_int_equal(vd_pread_all(fd, bytes, 1, UINT64_MAX, "file", &err), VD_ERR_DATA);
    assert_int_equal(vd_pread_all(fd, bytes, 8, INT64_MAX - 4, "file", &err), VD_ERR_DATA);
    close(fd);
    assert_int_equal(vd_pread_all(-1, bytes, 1, 0, "file", &err), VD_ERR_IO);
}

static void outputs_appear_when_committed(void **state) {
    (void)state;
    vd_outfile file;
    vd_error err;
    int64_t position;
    assert_int_equal(vd_outfile_open(&file, "a/b/out.mp4", false, &err), VD_OK);
    assert_memory_equal(file.temp_path, "a/b/.out.mp4.vdpp-", 18);
    assert_string_equal(file.temp_path + 24, ".tmp");
    assert_int_equal(vd_outfile_write(&file, "hello", 5, &err), VD_OK);
    assert_int_equal(vd_outfile_seek(&file, 0, SEEK_SET, &position, &err), VD_OK);
    assert_int_equal(vd_outfile_write(&file, "J", 1, &err), VD_OK);
    assert_int_equal(vd_outfile_seek(&file, 0, SEEK_END, &position, &err), VD_OK);
    assert_int_equal(position, 5);
    assert_int_equal(vd_outfile_seek(&file, -9, SEEK_SET, &position, &err), VD_ERR_IO);
    assert_int_not_equal(access("a/b/out.mp4", F_OK), 0);
    assert_int_equal(vd_outfile_commit(&file, &err), VD_OK);
    assert_int_equal(file.fd, -1);
    vd_outfile_abandon(&file);
    assert_content("a/b/out.mp4", "Jello");
    assert_int_equal(entries("a/b"), 1);
}

static void abandoned_outputs_leave_nothing(void **state) {
    (void)state;
    vd_outfile file;
    vd_error err;
    assert_int_equal(vd_outfile_open(&file, "out", false, &err), VD_OK);
    assert_int_equal(entries("."), 1);
    vd_outfile_abandon(&file);
    vd_outfile_abandon(&file);
    assert_int_equal(entries("."), 0);
    vd_outfile zeroed = {0};
    vd_outfile_abandon(&zeroed); /* must not close descriptor 0 */
    assert_true(fcntl(0, F_GETFD) >= 0);
}

static void existing_files_stay_without_overwrite(void **state) {
    (void)state;
    vd_error err;
    put("out", "old");
    assert_int_equal(symlink("nowhere", "dangling"), 0);
    assert_int_equal(vd_file_write("out", "new", 3, false, &err), VD_ERR_CANNOT_CREATE);
    assert_non_null(strstr(err.message, "-y"));
    assert_int_equal(vd_file_write("dangling", "new", 3, false, &err), VD_ERR_CANNOT_CREATE);
    assert_content("out", "old");
    assert_int_equal(vd_file_write("out", "new", 3, true, &err), VD_OK);
    assert_content("out", "new");
}

static void a_file_that_appears_meanwhile_stays(void **state) {
    (void)state;
    vd_outfile file;
    vd_error err;
    assert_int_equal(vd_outfile_open(&file, "out", false, &err), VD_OK);
    put("out", "theirs");
    assert_int_equal(vd_outfile_commit(&file, &err), VD_ERR_CANNOT_CREATE);
    assert_non_null(strstr(err.message, "-y"));
    assert_content("out", "theirs");
    assert_int_equal(entries("."), 1);
}

static void assert_uncreatable(const char *path, const char *message) {
    vd_error err;
    assert_int_equal(vd_file_write(path, "x", 1, true, &err), VD_ERR_CANNOT_CREATE);
    assert_non_null(strstr(err.message, message));
}

static void only_regular_files_are_replaced(void **state) {
    (void)state;
    assert_int_equal(mkdir("folder", 0700), 0);
    assert_int_equal(mkfifo("fifo", 0600), 0);
    assert_int_equal(symlink("/dev/null", "null"), 0);
    put("file", "x");
    assert_uncreatable("folder", "is a folder");
    assert_uncreatable("fifo", "is a FIFO");
    assert_uncreatable("null", "is a device");
    assert_uncreatable("", "names no file");
    assert_uncreatable("new/", "names no file");
    assert_uncreatable("file/out", "Not a directory");
    assert_uncreatable("file/sub/out", "cannot create folder 'file/sub'");
    assert_int_equal(entries("."), 4);
}

static void long_names_fit_or_are_refused(void **state) {
    (void)state;
    char name[VD_PATH_CAP + 10];
    memset(name, 'n', sizeof name);
    for (size_t i = 1; i < 255; i += 2)
        memcpy(name + i, "\xc3\xa9", 2);
    name[255] = '\0';
    put(name, "long");
    assert_content(name, "long");
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    assert_uncreatable(name, "File name too long");
    name[256] = 'n';
    name[sizeof name - 1] = '\0';
    assert_uncreatable(name, "too long");
    vd_error err;
    name[sizeof name - 2] = '/';
    assert_int_equal(vd_make_parents(name, &err), VD_ERR_CANNOT_CREATE);
}

static void the_umask_holds(void **state) {
    (void)state;
    mode_t before = umask(027);
    put("file", "x");
    umask(before);
    struct stat info;
    assert_int_equal(stat("file", &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
}

static void a_full_disk_is_an_io_error(void **state) {
    (void)state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    char bytes[3000] = {0};
    vd_error err;
    vd_code code = vd_file_write("out", bytes, sizeof bytes, false, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(code, VD_ERR_IO);
    assert_non_null(strstr(err.message, "'out': File too large"));
    assert_int_equal(entries("."), 0);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, enter_folder, leave_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(reads_whole_files),
        IN_FOLDER(refuses_other_kinds),
        IN_FOLDER(reads_at_offsets),
        IN_FOLDER(outputs_appear_when_committed),
        IN_FOLDER(abandoned_outputs_leave_nothing),
        IN_FOLDER(existing_files_stay_without_overwrite),
        IN_FOLDER(a_file_that_appears_meanwhile_stays),
        IN_FOLDER(only_regular_files_are_replaced),
        IN_FOLDER(long_names_fit_or_are_refused),
        IN_FOLDER(the_umask_holds),
        IN_FOLDER(a_full_disk_is_an_io_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
