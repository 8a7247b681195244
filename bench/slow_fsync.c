/* A slower disk, to be preloaded: every fsync and fdatasync takes 1 ms more than the real one.
 *
 * Where a write-back cache makes fsync nearly free, it is also nearly free to commit one transition at
 * a time, and nothing can be learnt about group commit. 1 ms is what a good networked disk takes.
 * The real call is made first, so durability is what it was.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <time.h>

static void one_ms_more(void) {
    struct timespec left = {0, 1000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) {
    }
}

static int then_wait(int (*call)(int), int descriptor) {
    int answer = call(descriptor);
    int kept = errno;
    one_ms_more();
    errno = kept;
    return answer;
}

int fsync(int descriptor) {
    return then_wait((int (*)(int))dlsym(RTLD_NEXT, "fsync"), descriptor);
}

int fdatasync(int descriptor) {
    return then_wait((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"), descriptor);
}
