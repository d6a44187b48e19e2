/*
 * Node: an addon. Of Node-API, whose binary interface is kept stable, it declares the six functions
 * that it calls, so that no headers need to be there for the node that is.
 */
#include "bridge.h"

#include <stdint.h>
#include <stdlib.h>

typedef struct env *napi_env;
typedef struct value *napi_value;
typedef struct callback_info *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);

int napi_create_function(napi_env, const char *name, size_t length, napi_callback, void *data, napi_value *result);
int napi_set_named_property(napi_env, napi_value object, const char *name, napi_value value);
int napi_get_cb_info(napi_env, napi_callback_info, size_t *count, napi_value *arguments, napi_value *self, void **data);
int napi_get_value_int64(napi_env, napi_value, int64_t *result);
int napi_create_int64(napi_env, int64_t, napi_value *result);
int napi_throw_error(napi_env, const char *code, const char *message);

#define LENGTH_OF_STRING SIZE_MAX

static struct functions functions; /* one library for all workers */

/* The number that the script passes. */
static int64_t
argument(napi_env env, napi_callback_info info)
{
    size_t count = 1;
    napi_value value;
    int64_t number = 0;
    napi_get_cb_info(env, info, &count, &value, NULL, NULL);
    napi_get_value_int64(env, value, &number);
    return number;
}

static napi_value
answer(napi_env env, const char *wrong)
{
    if (wrong != NULL)
        napi_throw_error(env, NULL, wrong);
    return NULL;
}

static napi_value
host_load(napi_env env, napi_callback_info info)
{
    (void)info;
    void *library;
    napi_value handle = answer(env, bridge_load(getenv("ALCOVE_TEST_MODULE"), &library, &functions));
    napi_create_int64(env, (int64_t)(intptr_t)library, &handle);
    return handle;
}

static napi_value
host_use(napi_env env, napi_callback_info info)
{
    return answer(env, bridge_use(&functions, (unsigned)argument(env, info)));
}

static napi_value
host_unload(napi_env env, napi_callback_info info)
{
    return answer(env, bridge_unload((void *)(intptr_t)argument(env, info)));
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports);

napi_value
napi_register_module_v1(napi_env env, napi_value exports)
{
    static const struct {
        const char *name;
        napi_callback call;
    } functions_of[] = {{"load", host_load}, {"use", host_use}, {"unload", host_unload}};
    for (size_t i = 0; i < sizeof functions_of / sizeof functions_of[0]; i++) {
        napi_value function;
        napi_create_function(env, functions_of[i].name, LENGTH_OF_STRING, functions_of[i].call, NULL, &function);
        napi_set_named_property(env, exports, functions_of[i].name, function);
    }
    return exports;
}
