# An MCP server for the tests, of both eras. What it does is in the method.
result() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$1" "$2"; }
notify() { printf '{"jsonrpc":"2.0","method":"%s","params":%s}\n' "$1" "$2"; }
member() { rest=${line#*"\"$1\":"}; printf %s "${rest%%[,\}]*}"; }
[ -z "$STARTS" ] || echo started >>"$STARTS"
while read -r line; do
  id=$(member id)
  case $line in
    *'"method":"initialize"'*)
      result "$id" "{\"protocolVersion\":$(member protocolVersion),\"capabilities\":{},\"serverInfo\":{\"name\":\"sh\",\"version\":\"1\"}}" ;;
    *'"method":"server/discover"'*)
      case $MODERN in
        yes) result "$id" '{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}' ;;
        ends) exit 1 ;;
        *) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no"}}\n' "$id" ;;
      esac ;;
    *'"method":"tools/list"'*)
      result "$id" '{"tools":[{"name":"t","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]}' ;;
    *'"method":"tools/call"'*) result "$id" '{"content":[]}' ;;
    *'"method":"x/pid"'*) result "$id" "{\"pid\":$$}" ;;
    *'"method":"x/place"'*) result "$id" "{\"place\":\"$PLACE\",\"directory\":\"$(pwd)\"}" ;;
    *'"method":"x/say"'*) echo "words for people" >&2; result "$id" '{}' ;;
    *'"method":"x/noise"'*) echo 'not JSON'; printf '\377\n'; echo '[]'; result "$id" '{}' ;;
    *'"method":"x/progress"'*)
      notify notifications/progress "{\"progressToken\":$(member progressToken),\"progress\":1}"
      notify notifications/message '{"level":"info","data":"working"}'
      result "$id" '{}' ;;
    *'"method":"x/change"'*)
      result "$id" '{}'
      notify notifications/tools/list_changed '{}' ;;
    *'"method":"x/long"'*) printf '{"result":{"text":"%5000s"},"jsonrpc":"2.0","id":%s}\n' '' "$id" ;;
    *'"method":"x/deny"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32000,"message":"no"}}\n' "$id" ;;
    *'"method":"x/slow"'*) sleep 1.5; result "$id" '{}' ;;
    *'"method":"x/batch"'*) printf '[%s,%s]\n' "$(notify x/y '{}')" "$(result "$id" '{}')" ;;
    *'"method":"x/mute"'*) exec >&-; sleep 300 ;;
    *'"method":"x/deaf"'*) echo "deaf" >&2; exec <&-; sleep 300 ;;
    *'"method":"x/exit"'*) exit 3 ;;
    *'"method":"x/complain"'*) echo "no database at $PLACE" >&2; exit 4 ;;
    *'"method":"x/die"'*) sleep 300 & echo "left $!" >&2; kill -9 $$ ;;
    *'"method":"x/hold"'*) held=$id; echo "holding" >&2 ;;
    *'"method":"x/release"'*) result "$id" '{}'; result "$held" '{"held":true}' ;;
    *'"method":"notifications/cancelled"'*) echo "cancelled $(member requestId)" >&2 ;;
  esac
done
[ -z "$MARK" ] || echo "end of stdin" >"$MARK"
[ -z "$SLOW" ] || sleep "$SLOW"
[ -z "$STUBBORN" ] || { trap '' TERM; while :; do sleep 1; done; }
