# @summary A text as TOML writes it.
# @param text
#   Any text of one line or several.
# @return [String] quoted
function catalog_queue::toml_text(String $text) >> String {
  $quoted = $text.regsubst('\\\\', '\\\\\\\\', 'G').regsubst('"', '\\\\"', 'G').regsubst("\n", '\\n', 'G').regsubst("\t", '\\t', 'G')
  "\"${quoted}\""
}
