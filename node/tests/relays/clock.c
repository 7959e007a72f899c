/* LD_PRELOAD: clocks that are off by the seconds in a file: the wall clock (CLOCK_OFF_REAL), the time since
   the machine started (CLOCK_OFF_BOOT), as after a suspend, and the same without suspends (CLOCK_OFF_MONO), by
   which relays of earlier commits tell the time. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long off(const char *name) {
  const char *path = getenv(name);
  char text[32] = {0};
  if (!path) return 0;
  int file = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  if (file < 0) return 0;
  long got = syscall(SYS_read, file, text, sizeof text - 1);
  syscall(SYS_close, file);
  return got > 0 ? strtol(text, 0, 10) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int result = syscall(SYS_clock_gettime, clock, time);
  if (clock == CLOCK_REALTIME) time->tv_sec += off("CLOCK_OFF_REAL");
  if (clock == CLOCK_BOOTTIME) time->tv_sec += off("CLOCK_OFF_BOOT");
  if (clock == CLOCK_MONOTONIC) time->tv_sec += off("CLOCK_OFF_MONO");
  return result;
}
