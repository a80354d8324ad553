#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void fail(const char *what) { fprintf(stderr, "%s\n", what); exit(2); }

static void begin(const char *what, RV rv) {
    if (rv != 0) { fprintf(stderr, "%s answers 0x%lx before the finding is reached\n", what, rv); exit(2); }
}

/* After a call: is the answer the one of the finding? */
static void told(const char *what, RV rv, RV then, const char *name) {
    printf("0x%lx, and %s in the finding\n", rv, name);
    if (rv != then) { the_same = 0; printf("%s answers otherwise\n", what); }
}

/* After a call that did not return in the finding. */
static void returned(const char *what, RV rv) {
    printf("0x%lx\n%s returns now\n", rv, what);
    the_same = 0;
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
    (void)begin; (void)told; (void)returned; (void)find_token; (void)log_in; (void)make_mutex; (void)use_mutex;
    (void)so_pin; (void)locking; (void)slot;
}
