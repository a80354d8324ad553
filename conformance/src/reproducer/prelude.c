#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef unsigned long RV;
typedef struct { unsigned long type; void *value; unsigned long length; } ATTRIBUTE;
typedef struct { unsigned long number; void *parameter; unsigned long length; } MECHANISM;
typedef struct { unsigned char version[2]; void *functions[104]; } LIST;
typedef struct { char *name; LIST *list; unsigned long flags; } INTERFACE;

static void **f;                    /* the functions of the module, in the standard's order */
static unsigned long slot;
static int the_same = 1;
static const char *pin = "", *so_pin = "", *label;
static unsigned char scratch[65536];
static void *locking[6] = { 0, 0, 0, 0, (void *)2UL /* CKF_OS_LOCKING_OK */, 0 };

static RV make_mutex(void **mutex) { *mutex = scratch; return 0; }
static RV use_mutex(void *mutex) { return mutex == 0; }

static int word[2];                 /* the pipe on which the process of the calls says how it ends */
static const char *expected, *seen; /* of the finding */
static char otherwise[160];         /* what the module does otherwise first */

static void say(char what) { if (write(word[1], &what, 1) != 1) _exit(2); }

/* The last line: what came of it. */
static void conclude(int code, const char *why) {
    if (code == 1) printf("reproduced: expected %s, seen %s\n", expected, seen);
    else printf("%s: %s\n", code == 0 ? "not reproduced" : "cannot be told", why);
    fflush(stdout);
}

/* The end of the process of the calls. */
static void end(int code, const char *why) {
    conclude(code, why);
    say((char)('0' + code));
    _exit(code);
}

static void fail(const char *what) { end(2, what); }

/* Makes a process for the calls, which the module may end, and waits for it. */
static void apart(const char *finding_expected, const char *finding_seen) {
    char last = 0;
    int status = 0;
    pid_t calls;
    expected = finding_expected;
    seen = finding_seen;
    if (pipe(word) != 0 || (calls = fork()) < 0) { perror("no second process"); exit(2); }
    if (calls == 0) { close(word[0]); return; }
    close(word[1]);
    while (read(word[0], &last, 1) == 1) if (last != 'n') break;
    waitpid(calls, &status, 0);
    if (last >= '0' && last <= '2') exit(last - '0');
    if (WIFSIGNALED(status)) printf("\nthe process is ended by signal %d%s\n", WTERMSIG(status), WTERMSIG(status) == 14 ? ": no answer in a minute" : "");
    else printf("\nthe module ends the process with the exit code %d\n", WEXITSTATUS(status));
    conclude(last == 'n' ? 1 : 2, "the process ends where it did not in the finding");
    exit(last == 'n' ? 1 : 2);
}

/* Before a call that did not return in the finding. */
static void no_return(void) { say('n'); alarm(60); }

/* All calls are made. What may differ from the calls of the finding never shows that it is gone. */
static void finish(const char *doubt) {
    if (!the_same && doubt) end(2, doubt);
    end(the_same, otherwise);
}

static void begin(const char *what, RV rv) {
    char why[160];
    snprintf(why, sizeof why, "%s answers 0x%lx before the finding is reached", what, rv);
    if (rv != 0) end(2, why);
}

/* The module does something otherwise. */
static void differs(const char *what, const char *how) {
    if (the_same) snprintf(otherwise, sizeof otherwise, "%s %s", what, how);
    the_same = 0;
    printf("%s %s\n", what, how);
}

/* After a call: is the answer the one of the finding? */
static void told(const char *what, RV rv, RV then, const char *name) {
    char how[96];
    printf("0x%lx, and %s in the finding\n", rv, name);
    snprintf(how, sizeof how, "answers otherwise: 0x%lx, not %s", rv, name);
    if (rv != then) differs(what, how);
}

/* After the last call: is what it puts out the one of the finding? */
static void put_out(const unsigned char *output, const unsigned char *then, unsigned long length) {
    if (memcmp(output, then, length) != 0) differs("the last call", "puts out other bytes than in the finding");
}

/* After a call that did not return in the finding. */
static void returned(const char *what, RV rv) {
    alarm(0);
    printf("0x%lx\n", rv);
    differs(what, "returns now");
}

static void find_token(void) {
    unsigned long slots[256], count = 256, i;
    unsigned char info[1024];
    begin("C_GetSlotList", ((RV (*)(unsigned long, void *, void *))f[4])(1, slots, &count));
    for (i = 0; i < count; i++) {
        unsigned long flags;
        char padded[33];
        if (((RV (*)(unsigned long, void *))f[6])(slots[i], info) != 0) continue;
        memcpy(&flags, info + 96, sizeof flags);
        if (label) snprintf(padded, sizeof padded, "%-32.32s", label);
        if (label ? memcmp(info, padded, 32) == 0 : (flags & 0x400UL) != 0) { slot = slots[i]; return; }
    }
    fail("there is no such token");
}

static void log_in(void) {
    unsigned long session;
    begin("C_OpenSession", ((RV (*)(unsigned long, unsigned long, void *, void *, void *))f[12])(slot, 6, 0, 0, &session));
    begin("C_Login", ((RV (*)(unsigned long, unsigned long, const void *, unsigned long))f[18])(session, 1, pin, strlen(pin)));
}

static void load(int argc, char **argv) {
    static const unsigned char newest[2] = { 3, 2 }, newer[2] = { 3, 0 };
    void *library;
    RV (*get_list)(LIST **), (*get_interface)(const char *, const void *, INTERFACE **, unsigned long);
    LIST *list = 0;
    INTERFACE *interface = 0;
    if (argc < 2) fail("usage: reproduce MODULE [TOKEN-LABEL]");
    label = argc > 2 ? argv[2] : 0;
    if (getenv("P11_PIN")) pin = getenv("P11_PIN");
    if (getenv("P11_SO_PIN")) so_pin = getenv("P11_SO_PIN");
    library = dlopen(argv[1], RTLD_NOW);
    if (!library) fail(dlerror());
    *(void **)&get_list = dlsym(library, "C_GetFunctionList");
    *(void **)&get_interface = dlsym(library, "C_GetInterface");
    if (!get_list || get_list(&list) != 0) fail("this is no PKCS#11 module");
    if (get_interface
        && (get_interface("PKCS 11", newest, &interface, 0) == 0 || get_interface("PKCS 11", newer, &interface, 0) == 0))
        list = interface->list;
    f = list->functions;
    (void)begin; (void)told; (void)put_out; (void)returned; (void)no_return; (void)find_token; (void)log_in; (void)make_mutex; (void)use_mutex;
    (void)so_pin; (void)locking; (void)slot;
}
