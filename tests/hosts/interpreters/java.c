/* Java: the native methods of class Host. */
#include "bridge.h"

#include <jni.h>

static struct functions functions;

JNIEXPORT jlong JNICALL Java_Host_load(JNIEnv *env, jclass host, jstring path);
JNIEXPORT jstring JNICALL Java_Host_use(JNIEnv *env, jclass host, jint seed);
JNIEXPORT jstring JNICALL Java_Host_unload(JNIEnv *env, jclass host, jlong library);

static jstring
answer(JNIEnv *env, const char *wrong)
{
    return wrong == NULL ? NULL : (*env)->NewStringUTF(env, wrong);
}

jlong
Java_Host_load(JNIEnv *env, jclass host, jstring path)
{
    (void)host;
    void *library;
    const char *bytes = (*env)->GetStringUTFChars(env, path, NULL);
    const char *wrong = bridge_load(bytes, &library, &functions);
    (*env)->ReleaseStringUTFChars(env, path, bytes);
    if (wrong != NULL)
        (*env)->ThrowNew(env, (*env)->FindClass(env, "java/lang/UnsatisfiedLinkError"), wrong);
    return (jlong)library;
}

jstring
Java_Host_use(JNIEnv *env, jclass host, jint seed)
{
    (void)host;
    return answer(env, bridge_use(&functions, (unsigned)seed));
}

jstring
Java_Host_unload(JNIEnv *env, jclass host, jlong library)
{
    (void)host;
    return answer(env, bridge_unload((void *)library));
}
