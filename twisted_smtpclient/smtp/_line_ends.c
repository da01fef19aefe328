/* The same as smtp/line_ends.py does in Python, where each octet costs a step of a loop: here
 * memchr() passes over those that end no line.
 *
 * Octets are read and never written; nothing is kept between calls.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

static const char *
next(const char *from, const char *end, int octet)
{
    /* memchr() must not be given the place behind a buffer, not even for no octets of it. */
    return from < end ? memchr(from, octet, (size_t)(end - from)) : NULL;
}

static Py_ssize_t
count_bare(const char *octets, const char *end)
{
    const char *feed = next(octets, end, '\n');
    const char *carriage = next(octets, end, '\r');
    Py_ssize_t bare = 0;
    /* Each is the next of its kind that is not counted yet. */
    while (feed != NULL || carriage != NULL) {
        if (carriage == NULL || (feed != NULL && feed < carriage)) {
            bare++;
            feed = next(feed + 1, end, '\n');
            continue;
        }
        if (feed == carriage + 1)
            feed = next(feed + 1, end, '\n');
        else
            bare++;
        carriage = next(carriage + 1, end, '\r');
    }
    return bare;
}

static int
is_eight_bit(const char *octets, const char *end)
{
    uint64_t all = 0, word;
    for (; end - octets >= (Py_ssize_t)sizeof word; octets += sizeof word) {
        memcpy(&word, octets, sizeof word);
        all |= word;
    }
    for (; octets < end; octets++)
        all |= (unsigned char)*octets;
    /* The first bit of each of eight. */
    return (all & UINT64_C(0x8080808080808080)) != 0;
}

static PyObject *
bare_line_ends(PyObject *module, PyObject *message)
{
    Py_buffer octets;
    if (PyObject_GetBuffer(message, &octets, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_ssize_t bare = count_bare(octets.buf, (const char *)octets.buf + octets.len);
    PyBuffer_Release(&octets);
    return PyLong_FromSsize_t(bare);
}

static PyObject *
survey(PyObject *module, PyObject *message)
{
    Py_buffer octets;
    if (PyObject_GetBuffer(message, &octets, PyBUF_SIMPLE) < 0)
        return NULL;
    const char *end = (const char *)octets.buf + octets.len;
    PyObject *bare = PyLong_FromSsize_t(count_bare(octets.buf, end));
    PyObject *eight_bit = is_eight_bit(octets.buf, end) ? Py_True : Py_False;
    PyBuffer_Release(&octets);
    if (bare == NULL)
        return NULL;
    PyObject *both = PyTuple_Pack(2, bare, eight_bit);
    Py_DECREF(bare);
    return both;
}

static PyObject *
has_dotted_line(PyObject *module, PyObject *message)
{
    Py_buffer octets;
    if (PyObject_GetBuffer(message, &octets, PyBUF_SIMPLE) < 0)
        return NULL;
    const char *end = (const char *)octets.buf + octets.len;
    const char *line = octets.buf;
    int found = 0;
    while (line != NULL && line < end && !(found = *line == '.')) {
        line = next(line, end, '\n');
        if (line != NULL)
            line++;
    }
    PyBuffer_Release(&octets);
    return PyBool_FromLong(found);
}

static PyMethodDef functions[] = {
    {"bare_line_ends", bare_line_ends, METH_O, NULL},
    {"survey", survey, METH_O, NULL},
    {"has_dotted_line", has_dotted_line, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_line_ends",
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__line_ends(void)
{
    return PyModuleDef_Init(&definition);
}
