/* The same as smtp/forward_path.py does in Python, where to match a pattern costs five times what
 * this does.
 *
 * A string is read and never written; nothing is kept between calls.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

/* MAX_PLAIN of smtp/grammar.py. */
#define MAX_PLAIN 65

static const char BEFORE[] = "RCPT TO:<";
static const char BEHIND[] = ">\r\n";
#define OCTETS_BEFORE (sizeof BEFORE - 1)
#define OCTETS_BEHIND (sizeof BEHIND - 1)

static int
is_alnum(unsigned char octet)
{
    return (octet >= '0' && octet <= '9') || (octet >= 'A' && octet <= 'Z') || (octet >= 'a' && octet <= 'z');
}

/* RFC 5322 section 3.2.3. */
static int
is_atext(unsigned char octet)
{
    return is_alnum(octet) || (octet != 0 && strchr("!#$%&'*+-/=?^_`{|}~", octet) != NULL);
}

/* PLAIN_MAILBOX of smtp/grammar.py: one or more octets of a kind, between each two marks. */
static int
is_plain(const unsigned char *octets, Py_ssize_t length)
{
    int behind_at = 0, behind_mark = 1;
    for (Py_ssize_t i = 0; i < length; i++) {
        unsigned char octet = octets[i];
        if (behind_at ? is_alnum(octet) : is_atext(octet)) {
            behind_mark = 0;
            continue;
        }
        if (behind_mark)
            return 0;
        behind_mark = 1;
        if (octet == '@' && !behind_at)
            behind_at = 1;
        else if (octet != '.' && !(octet == '-' && behind_at))
            return 0;
    }
    return behind_at && !behind_mark;
}

static PyObject *
plain_rcpt(PyObject *module, PyObject *address)
{
    if (!PyUnicode_Check(address)) {
        PyErr_SetString(PyExc_TypeError, "expected a string");
        return NULL;
    }
#if PY_VERSION_HEX < 0x030c0000
    /* Later a string is ready whenever there is one. */
    if (PyUnicode_READY(address) < 0)
        return NULL;
#endif
    Py_ssize_t length = PyUnicode_GET_LENGTH(address);
    if (length > MAX_PLAIN || !PyUnicode_IS_ASCII(address))
        Py_RETURN_NONE;
    const unsigned char *octets = PyUnicode_1BYTE_DATA(address);
    if (!is_plain(octets, length))
        Py_RETURN_NONE;
    PyObject *command = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(OCTETS_BEFORE + OCTETS_BEHIND) + length);
    if (command == NULL)
        return NULL;
    char *to = PyBytes_AS_STRING(command);
    memcpy(to, BEFORE, OCTETS_BEFORE);
    memcpy(to + OCTETS_BEFORE, octets, (size_t)length);
    memcpy(to + OCTETS_BEFORE + length, BEHIND, OCTETS_BEHIND);
    return command;
}

static PyMethodDef functions[] = {
    {"plain_rcpt", plain_rcpt, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_forward_path",
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__forward_path(void)
{
    return PyModuleDef_Init(&definition);
}
