/*
 * A security key for OpenSSH's programs (SecurityKeyProvider, `ssh-keygen -w`), after the interface in its PROTOCOL.u2f
 * and sk-api.h. It knows nothing of cryptography: what it is asked it passes on to the unix socket that
 * DUNNART_TEST_TOKEN names, where a test holds the key.
 *
 *   asked:    byte operation ('E' enrol, 'S' sign), byte algorithm, byte flags, string application, string handle,
 *             string data
 *   answered: 'E': byte 1, string public key, string handle
 *             'S': byte 1, byte flags, uint32 counter, string r (or the Ed25519 signature), string s
 *   anything else, or the end: it failed
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define API_VERSION 0x000a0000
#define FAILED (-1)
#define UNSUPPORTED (-2)

struct enrolled {
    uint8_t flags;
    uint8_t *public_key;
    size_t public_key_bytes;
    uint8_t *handle;
    size_t handle_bytes;
    uint8_t *signature;
    size_t signature_bytes;
    uint8_t *certificate;
    size_t certificate_bytes;
    uint8_t *authdata;
    size_t authdata_bytes;
};

struct signature {
    uint8_t flags;
    uint32_t counter;
    uint8_t *r;
    size_t r_bytes;
    uint8_t *s;
    size_t s_bytes;
};

static int send_all(int token, const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size > 0) {
        ssize_t sent = write(token, at, size);
        if (sent <= 0)
            return FAILED;
        at += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int receive_all(int token, void *data, size_t size)
{
    uint8_t *at = data;

    while (size > 0) {
        ssize_t received = read(token, at, size);
        if (received <= 0)
            return FAILED;
        at += received;
        size -= (size_t)received;
    }
    return 0;
}

static int send_string(int token, const void *data, size_t size)
{
    uint8_t length[4] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size};

    return send_all(token, length, sizeof length) || send_all(token, data, size) ? FAILED : 0;
}

static int receive_number(int token, uint32_t *number)
{
    uint8_t octets[4];

    if (receive_all(token, octets, sizeof octets))
        return FAILED;
    *number = (uint32_t)octets[0] << 24 | (uint32_t)octets[1] << 16 | (uint32_t)octets[2] << 8 | octets[3];
    return 0;
}

static int receive_string(int token, uint8_t **data, size_t *size)
{
    uint32_t length;

    if (receive_number(token, &length) || length > 4096 || (*data = calloc(1, length + 1)) == NULL)
        return FAILED;
    *size = length;
    return receive_all(token, *data, length);
}

/* Gives a socket from which what follows the byte 1 can be read. */
static int ask(uint8_t operation, uint32_t algorithm, uint8_t flags, const char *application, const uint8_t *handle,
    size_t handle_bytes, const uint8_t *data, size_t data_bytes)
{
    const char *path = getenv("DUNNART_TEST_TOKEN");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint8_t head[3] = {operation, (uint8_t)algorithm, flags};
    uint8_t good = 0;
    int token;

    if (path == NULL || strlen(path) >= sizeof address.sun_path || (token = socket(AF_UNIX, SOCK_STREAM, 0)) < 0)
        return FAILED;
    strcpy(address.sun_path, path);
    if (connect(token, (struct sockaddr *)&address, sizeof address) == 0 && send_all(token, head, sizeof head) == 0 &&
        send_string(token, application, strlen(application)) == 0 && send_string(token, handle, handle_bytes) == 0 &&
        send_string(token, data, data_bytes) == 0 && receive_all(token, &good, 1) == 0 && good == 1)
        return token;
    close(token);
    return FAILED;
}

uint32_t sk_api_version(void)
{
    return API_VERSION;
}

int sk_enroll(uint32_t algorithm, const uint8_t *challenge, size_t challenge_bytes, const char *application,
    uint8_t flags, const char *pin, void **options, struct enrolled **answer)
{
    struct enrolled *made = calloc(1, sizeof *made);
    int token = ask('E', algorithm, flags, application, NULL, 0, challenge, challenge_bytes);
    int result = FAILED;

    (void)pin;
    (void)options;
    if (token >= 0 && made != NULL && receive_string(token, &made->public_key, &made->public_key_bytes) == 0 &&
        receive_string(token, &made->handle, &made->handle_bytes) == 0 && (made->signature = calloc(1, 1)) != NULL) {
        made->flags = flags;
        *answer = made;
        result = 0;
    }
    if (token >= 0)
        close(token);
    return result;
}

int sk_sign(uint32_t algorithm, const uint8_t *data, size_t data_bytes, const char *application, const uint8_t *handle,
    size_t handle_bytes, uint8_t flags, const char *pin, void **options, struct signature **answer)
{
    struct signature *made = calloc(1, sizeof *made);
    int token = ask('S', algorithm, flags, application, handle, handle_bytes, data, data_bytes);
    int result = FAILED;

    (void)pin;
    (void)options;
    if (token >= 0 && made != NULL && receive_all(token, &made->flags, 1) == 0 &&
        receive_number(token, &made->counter) == 0 && receive_string(token, &made->r, &made->r_bytes) == 0 &&
        receive_string(token, &made->s, &made->s_bytes) == 0) {
        *answer = made;
        result = 0;
    }
    if (token >= 0)
        close(token);
    return result;
}

int sk_load_resident_keys(const char *pin, void **options, void ***keys, size_t *count)
{
    (void)pin;
    (void)options;
    (void)keys;
    (void)count;
    return UNSUPPORTED;
}
