/* Makes the disk refuse: the Nth call that changes something below a folder fails, or every one from the Nth on.
 *
 *     cc -shared -fPIC -o failing_disk.so failing_disk.c -ldl
 *     LD_PRELOAD=./failing_disk.so python ...
 *
 * The process sets it by `disk_fails`, and asks by `disk_calls` how many calls there were. Counted are open for writing,
 * mkdir, write, ftruncate, fsync, rename and link, where the path contains the name of the folder. Removing never fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[NAME_MAX] = "";
static atomic_int calls, fail_at, fail_on, code;

void disk_fails(const char *name, int nth, int and_after, int error_number) {
    snprintf(folder, sizeof folder, "%s", name);
    fail_at = nth;
    fail_on = and_after;
    code = error_number;
    calls = 0;
}

int disk_calls(void) { return calls; }

/* Return whether this call is one that fails; errno is set then. */
static int refused(const char *path) {
    if (folder[0] == 0 || path == NULL || strstr(path, folder) == NULL) return 0;
    int number = atomic_fetch_add(&calls, 1) + 1;
    if (fail_at == 0 || number < fail_at || (number > fail_at && !fail_on)) return 0;
    errno = code;
    return 1;
}

static int refused_by_descriptor(int descriptor) {
    if (folder[0] == 0) return 0;
    int before = errno;
    char link_path[64], path[PATH_MAX];
    snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link_path, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return refused(path);
}

#define REAL(result, name, ...)                                                 \
    static result (*real)(__VA_ARGS__);                                         \
    if (real == NULL) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        REAL(int, #name, const char *, int, ...);                               \
        va_list rest;                                                           \
        va_start(rest, flags);                                                  \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                           \
        if ((flags & (O_WRONLY | O_RDWR)) && refused(path)) return -1;          \
        return real(path, flags, mode);                                         \
    }
OPEN(open)
OPEN(open64)

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    return refused(path) ? -1 : real(path, mode);
}

ssize_t write(int descriptor, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return refused_by_descriptor(descriptor) ? -1 : real(descriptor, bytes, count);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    return refused_by_descriptor(descriptor) ? -1 : real(descriptor, parts, count);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return refused_by_descriptor(descriptor) ? -1 : real(descriptor, bytes, count, offset);
}

int ftruncate64(int descriptor, off64_t length) {
    REAL(int, "ftruncate64", int, off64_t);
    return refused_by_descriptor(descriptor) ? -1 : real(descriptor, length);
}

int fsync(int descriptor) {
    REAL(int, "fsync", int);
    return refused_by_descriptor(descriptor) ? -1 : real(descriptor);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return refused(to) ? -1 : real(from, to);
}

int link(const char *from, const char *to) {
    REAL(int, "link", const char *, const char *);
    return refused(to) ? -1 : real(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    return refused(to) ? -1 : real(from_folder, from, to_folder, to, flags);
}
