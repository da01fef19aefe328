#!/bin/sh
# Fetches the mail servers that the integration tests talk to, from Debian's
# (or Ubuntu's) packages, and unpacks them side by side into one folder:
# Postfix, Exim, Dovecot, swaks as a second opinion, and RabbitMQ with the parts
# of Erlang that it needs.
#
#   sudo apt-get update && sudo tests/integration/servers.sh [--fresh]
#
# Nothing is installed: packages of mail servers conflict with each other, and
# their install scripts start daemons.  The folder is SMTP_SERVERS, and
# /var/cache/twisted_smtpclient/servers without it; the servers give up root
# on the way, so each folder above it must be open to all users.  Run again,
# the script does nothing, unless --fresh asks for the newest packages or the
# list of packages below has changed.
#
# Programs that need libraries of their own are found in $SMTP_SERVERS/bin
# (smtp-sink, smtp-source, swaks), ready to run.
set -eu

packages="postfix exim4-daemon-light exim4-base dovecot-core dovecot-lmtpd libnss-wrapper swaks rabbitmq-server"
servers="${SMTP_SERVERS:-/var/cache/twisted_smtpclient/servers}"
form=4 # raise it when what stands below makes another tree of the same packages
complete="$servers/COMPLETE"
wanted="form $form: $packages"
case "$servers" in
/*) ;;
*)
    echo "SMTP_SERVERS is not an absolute path: $servers" >&2
    exit 1
    ;;
esac

if [ "${1:-}" != "--fresh" ] && [ -f "$complete" ] && [ "$(head -n 1 "$complete")" = "$wanted" ]; then
    echo "mail servers are in $servers"
    exit 0
fi

umask 022
mkdir -p "$(dirname "$servers")"
fresh="$(mktemp -d "$servers.XXXXXX")"
trap 'rm -rf "$fresh"' EXIT
chmod 755 "$fresh"

# The shared libraries that this machine lacks, and Erlang, are what installing
# would bring.
# One package at a time: together they are not installable.
libraries="$(for package in $packages; do
    apt-get install --simulate --no-install-recommends "$package" | sed -n 's/^Inst \(\(lib\|erlang-\)[^ ]*\) .*/\1/p'
done | sort -u)"

mkdir "$fresh/packages"
# apt drops to a user that may not write here; as root it warns of that.
# shellcheck disable=SC2086
(cd "$fresh/packages" && apt-get download -q -o APT::Sandbox::User=root $packages $libraries)
for package in "$fresh"/packages/*.deb; do
    dpkg-deb --extract "$package" "$fresh"
done
rm -r "$fresh/packages"
# Exim is setuid root in the package.  What runs here is started by root and
# needs no such thing; neither should it lie about.
find "$fresh" -xdev -type f -perm /6000 -exec chmod a-s {} +

# Dovecot looks for the module that it speaks TLS with in a folder that no
# setting names.  The same number of octets, relative to the folder in which it
# runs (base_dir), where tests put a link of that name.
for library in "$fresh"/usr/lib/dovecot/libdovecot.so.*.*.*; do
    sed -i 's|/usr/lib/dovecot/modules\x00|modules\x00/////////////////|g' "$library"
done

# Erlang looks for itself where it would have been installed.
sed -i "s|^\([[:space:]]*ROOTDIR=\)/usr/lib/erlang$|\1$servers/usr/lib/erlang|" "$fresh"/usr/lib/erlang/bin/erl

# Below usr/lib and lib: Postfix's and Dovecot's own, and the one of this kind of machine.
path="$(cd "$fresh" && for folder in usr/lib/postfix usr/lib/dovecot usr/lib/dovecot/modules/old-stats usr/lib/*-linux-gnu* lib/*-linux-gnu*; do
    [ ! -d "$folder" ] || printf '%s:' "$servers/$folder"
done)"
path="${path%:}"
mkdir "$fresh/bin"
for program in sbin/smtp-sink sbin/smtp-source bin/swaks; do
    cat >"$fresh/bin/${program#*/}" <<END
#!/bin/sh
LD_LIBRARY_PATH="$path" exec "$servers/usr/$program" "\$@"
END
    chmod 755 "$fresh/bin/${program#*/}"
done

cd "$fresh/usr"
for program in sbin/exim4 sbin/dovecot sbin/smtp-sink lib/postfix/sbin/master lib/postfix/sbin/smtpd \
    lib/dovecot/lmtp lib/dovecot/auth lib/erlang/bin/epmd lib/erlang/erts-*/bin/beam.smp; do
    lacking="$(LD_LIBRARY_PATH="$(echo "$path" | sed "s|$servers|$fresh|g")" ldd "$fresh/usr/$program" |
        sed -n 's/^[[:space:]]*\([^ ]*\) => not found/\1/p')"
    if [ -n "$lacking" ]; then
        echo "$program lacks shared libraries: $lacking" >&2
        exit 1
    fi
done
cd /

{
    echo "$wanted"
    echo "$path"
} >"$fresh/COMPLETE"
rm -rf "$servers"
mv "$fresh" "$servers"
trap - EXIT
echo "mail servers are in $servers"
