"""The gateway: the only door that hospitals reach, in front of the SuperLink.

It asks for TLS 1.3, a hospital's own certificate, and a path on a list. Flower's SuperLink serves three APIs on one
port and guards one of them, by a signature over a time of day. So it listens on a Unix socket that its owner alone can
open, and every request of a hospital passes this door. A request is forwarded when the certificate of its connection,
the node key that it names and an admitted hospital agree; it is then written anew, with the few headers that Flower
needs. Every other path, in any spelling, is answered with 404.

The door reads no message and keeps none: bodies pass in pieces, both ways, and only refusals are logged. What a message
may say, and whether it is what its hospital signed, is decided in configs/wire.py and configs/seal.py.

    authorise.py     who asks: certificate, node key and admission must agree
    paths.py         what may be asked, and which headers pass
    limits.py        how often, and the log of what was refused
    forward.py       a request on its way to the SuperLink and back
    auth_only.py     the same decisions for nginx as the door (server/nginx.py)
    strict_http.py   HTTP/1.1 without what can be read in two ways; connections, TLS
    __main__.py      python -m server.gateway FOLDER
"""
