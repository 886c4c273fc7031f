#!/usr/bin/env bash
# Ends the Ray head, and every other Ray process of this user on this machine.
set -euo pipefail
exec ray stop
