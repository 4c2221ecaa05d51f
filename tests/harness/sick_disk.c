/* A disk that misbehaves, for one process and one directory: preloaded, switched at run time (sick_disk.py).

   It stands before the C library's calls on files. A shared page says what is wrong: an errno for each kind of call, and
   how long a sync takes. A call on a file below the directory then fails, or waits, as on a sick disk; every other call,
   and every call while nothing is wrong, goes straight on. The page also counts the calls that were hit, so that a test
   knows that its fault was met.

   What is mapped into memory (SQLite's -shm) cannot be reached this way and stays sound. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The kinds of call, in the order of sick_disk.py. */
enum kind { SYNC, WRITE, READ, OPEN, CHANGE, KINDS };

struct page {
    _Atomic int32_t is_sick;      /* 0: nothing is wrong, whatever else is said */
    _Atomic int32_t sync_wait_ms; /* how long a sync waits before it goes on */
    _Atomic int32_t error[KINDS]; /* 0, or the errno that a call of this kind fails with */
    _Atomic int32_t hit[KINDS];   /* how many calls of this kind were made to fail or to wait */
};

static struct page *page;
static const char *directory;
static size_t directory_length;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SICK_DISK_PAGE");
    directory = getenv("SICK_DISK_DIRECTORY");
    if (!path || !directory)
        return;
    directory_length = strlen(directory);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return;
    void *mapped = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        page = mapped;
}

static int is_sick(void)
{
    return page && atomic_load_explicit(&page->is_sick, memory_order_relaxed);
}

static int is_below(const char *path)
{
    return strncmp(path, directory, directory_length) == 0 &&
           (path[directory_length] == '/' || path[directory_length] == '\0' || path[directory_length] == ' ');
}

/* The kernel knows the path of every open file; that of a deleted one goes on with " (deleted)". */
static int is_file_below(int file)
{
    char link[40], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return is_below(path);
}

static int is_path_below(int folder, const char *path)
{
    if (path[0] == '/' && strncmp(path, "/proc/self/fd/", 14) == 0)
        return is_file_below(atoi(path + 14));
    if (path[0] == '/')
        return is_below(path);
    return folder != AT_FDCWD && is_file_below(folder);
}

static void pause_for_ms(int32_t wait_ms)
{
    const struct timespec slice = {0, 10 * 1000 * 1000};
    for (int32_t passed_ms = 0; passed_ms < wait_ms && is_sick() && page->sync_wait_ms; passed_ms += 10)
        nanosleep(&slice, NULL);
}

/* Whether a call that was found to be on the sick disk has to fail; it then has its errno. */
static int fails(enum kind kind)
{
    int32_t wait_ms = kind == SYNC ? page->sync_wait_ms : 0, error = page->error[kind];
    if (wait_ms || error)
        atomic_fetch_add(&page->hit[kind], 1);
    if (wait_ms)
        pause_for_ms(wait_ms);
    if (error)
        errno = error;
    return error != 0;
}

#define FAILS_ON_FILE(kind, file) (is_sick() && is_file_below(file) && fails(kind))
#define FAILS_ON_PATH(kind, folder, path) (is_sick() && is_path_below(folder, path) && fails(kind))
#define NEXT(type, name, ...)                                                                                          \
    static type (*next)(__VA_ARGS__);                                                                                  \
    if (!next)                                                                                                         \
        next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);

#define SYNCING(name)                                                                                                  \
    int name(int file)                                                                                                 \
    {                                                                                                                  \
        NEXT(int, #name, int)                                                                                          \
        return FAILS_ON_FILE(SYNC, file) ? -1 : next(file);                                                            \
    }
SYNCING(fsync)
SYNCING(fdatasync)

ssize_t write(int file, const void *data, size_t size)
{
    NEXT(ssize_t, "write", int, const void *, size_t)
    return FAILS_ON_FILE(WRITE, file) ? -1 : next(file, data, size);
}

#define WRITING_AT(name)                                                                                               \
    ssize_t name(int file, const void *data, size_t size, off_t offset)                                                \
    {                                                                                                                  \
        NEXT(ssize_t, #name, int, const void *, size_t, off_t)                                                         \
        return FAILS_ON_FILE(WRITE, file) ? -1 : next(file, data, size, offset);                                       \
    }
WRITING_AT(pwrite)
WRITING_AT(pwrite64)

ssize_t writev(int file, const struct iovec *pieces, int count)
{
    NEXT(ssize_t, "writev", int, const struct iovec *, int)
    return FAILS_ON_FILE(WRITE, file) ? -1 : next(file, pieces, count);
}

ssize_t read(int file, void *data, size_t size)
{
    NEXT(ssize_t, "read", int, void *, size_t)
    return FAILS_ON_FILE(READ, file) ? -1 : next(file, data, size);
}

#define READING_AT(name)                                                                                               \
    ssize_t name(int file, void *data, size_t size, off_t offset)                                                      \
    {                                                                                                                  \
        NEXT(ssize_t, #name, int, void *, size_t, off_t)                                                               \
        return FAILS_ON_FILE(READ, file) ? -1 : next(file, data, size, offset);                                        \
    }
READING_AT(pread)
READING_AT(pread64)

/* Only an opening that may write or create fails; one to read does on no disk that is merely full or read-only. */
static mode_t mode_of(int flags, va_list rest)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

#define OPENING(name)                                                                                                  \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        NEXT(int, #name, const char *, int, ...)                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = mode_of(flags, rest);                                                                            \
        va_end(rest);                                                                                                  \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT) && FAILS_ON_PATH(OPEN, AT_FDCWD, path))                              \
            return -1;                                                                                                 \
        return next(path, flags, mode);                                                                                \
    }
OPENING(open)
OPENING(open64)

#define OPENING_AT(name)                                                                                               \
    int name(int folder, const char *path, int flags, ...)                                                             \
    {                                                                                                                  \
        NEXT(int, #name, int, const char *, int, ...)                                                                  \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = mode_of(flags, rest);                                                                            \
        va_end(rest);                                                                                                  \
        if (flags & (O_WRONLY | O_RDWR | O_CREAT) && FAILS_ON_PATH(OPEN, folder, path))                                \
            return -1;                                                                                                 \
        return next(folder, path, flags, mode);                                                                        \
    }
OPENING_AT(openat)
OPENING_AT(openat64)

#define TRUNCATING(name)                                                                                               \
    int name(int file, off_t size)                                                                                     \
    {                                                                                                                  \
        NEXT(int, #name, int, off_t)                                                                                   \
        return FAILS_ON_FILE(CHANGE, file) ? -1 : next(file, size);                                                    \
    }
TRUNCATING(ftruncate)
TRUNCATING(ftruncate64)

/* Unlike the others it returns the errno. */
#define ALLOCATING(name)                                                                                               \
    int name(int file, off_t offset, off_t size)                                                                       \
    {                                                                                                                  \
        NEXT(int, #name, int, off_t, off_t)                                                                            \
        return FAILS_ON_FILE(CHANGE, file) ? errno : next(file, offset, size);                                         \
    }
ALLOCATING(posix_fallocate)
ALLOCATING(posix_fallocate64)

int mkdir(const char *path, mode_t mode)
{
    NEXT(int, "mkdir", const char *, mode_t)
    return FAILS_ON_PATH(CHANGE, AT_FDCWD, path) ? -1 : next(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode)
{
    NEXT(int, "mkdirat", int, const char *, mode_t)
    return FAILS_ON_PATH(CHANGE, folder, path) ? -1 : next(folder, path, mode);
}

int unlink(const char *path)
{
    NEXT(int, "unlink", const char *)
    return FAILS_ON_PATH(CHANGE, AT_FDCWD, path) ? -1 : next(path);
}

int unlinkat(int folder, const char *path, int flags)
{
    NEXT(int, "unlinkat", int, const char *, int)
    return FAILS_ON_PATH(CHANGE, folder, path) ? -1 : next(folder, path, flags);
}

int rename(const char *before, const char *after)
{
    NEXT(int, "rename", const char *, const char *)
    return FAILS_ON_PATH(CHANGE, AT_FDCWD, before) ? -1 : next(before, after);
}

int renameat(int folder, const char *before, int onto, const char *after)
{
    NEXT(int, "renameat", int, const char *, int, const char *)
    return FAILS_ON_PATH(CHANGE, folder, before) ? -1 : next(folder, before, onto, after);
}
