#!/usr/bin/env bash
# huggingface_hub: create_repo(private=True, exist_ok=True) leaves a public repository public, without a word.
#
# One would guess that it raises where the repository is not what was asked for, or makes it private. What happens: the server's
# "exists already" is taken as success, whatever its visibility, and what is uploaded next can be seen by anyone. The server here
# is a stand-in with the one answer that the hub gives then; no second request is made, such as one that asks or changes it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import huggingface_hub
from huggingface_hub import HfApi

print("huggingface_hub", huggingface_hub.__version__)
requests = []


class Hub(BaseHTTPRequestHandler):
    """Holds a public repository, someone/open."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        requests.append((self.path, body.get("visibility")))
        answer = json.dumps({"error": "You already created this model repo", "url": "http://127.0.0.1/someone/open"})
        self.send_response(409)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *arguments):
        pass


server = HTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
api = HfApi(endpoint=f"http://127.0.0.1:{server.server_port}", token="hf_none")
url = api.create_repo("someone/open", private=True, exist_ok=True)
print(f"asked: {requests}; returned without an error: {url!r}")
assert requests == [("/api/repos/create", "private")]
PY
