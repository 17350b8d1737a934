"""Chat templates in the style of well-known models, and conversations for them."""

LLAMA = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n"
    "    {%- if strftime_now is defined %}\n        {%- set date_string = strftime_now('%d %b %Y') %}\n"
    "    {%- else %}\n        {%- set date_string = '26 Jul 2024' %}\n    {%- endif %}\n{%- endif %}\n"
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {%- set system_message = messages[0]['content'] | trim %}\n    {%- set messages = messages[1:] %}\n"
    "{%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}\n"
    "{{- 'Today Date: ' + date_string + '\\n\\n' }}\n{{- system_message }}\n{{- '<|eot_id|>' }}\n"
    "{%- for message in messages %}\n"
    "    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}\n"
    "        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
    "message['content'] | trim + '<|eot_id|>' }}\n"
    "    {%- elif 'tool_calls' in message %}\n"
    "        {%- if not message.tool_calls|length == 1 %}\n"
    "            {{- raise_exception('one call at a time') }}\n        {%- endif %}\n"
    "        {%- set call = message.tool_calls[0].function %}\n"
    '        {{- \'{"name": "\' + call.name + \'", "parameters": \' }}\n'
    "        {{- call.arguments | tojson }}{{- '}<|eot_id|>' }}\n"
    "    {%- else %}\n        {{- message.content | tojson if message.content is mapping else message.content }}\n"
    "    {%- endif %}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set loop_messages = messages[1:] %}{% else %}{% set first = '' %}{% set loop_messages = messages %}"
    "{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}"
    "{% elif message['content'] is iterable %}{% for item in message['content'] %}"
    "{{ item['text'] | trim if item['type'] == 'text' else '<image>' }}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN = (
    "{%- if tools %}\n    {{- '<|im_start|>system\\n# Tools' }}\n    {%- for tool in tools %}\n"
    '        {{- "\\n" }}\n        {{- tool | tojson }}\n    {%- endfor %}\n'
    "    {{- '<|im_end|>\\n' }}\n{%- endif %}\n"
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n"
    "{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n"
    "    {%- if ns.multi_step_tool and message.role == 'user' and not "
    "(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n"
    "        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n"
    "    {%- endif %}\n{%- endfor %}\n"
    "{%- for message in messages %}\n    {%- set content = message.content %}\n"
    "    {%- if message.role == 'assistant' %}\n        {%- set reasoning = '' %}\n"
    "        {%- if '</think>' in message.content %}\n"
    "            {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}\n"
    "            {%- set reasoning = message.content.split('</think>')[0].rstrip('\\n')"
    ".split('<think>')[-1].lstrip('\\n') %}\n        {%- endif %}\n"
    "        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning) %}\n"
    "            {{- '<|im_start|>assistant\\n<think>\\n' ~ reasoning.strip('\\n') ~ '\\n</think>\\n\\n' ~ content }}\n"
    "        {%- else %}\n            {{- '<|im_start|>assistant\\n' + content }}\n        {%- endif %}\n"
    "    {%- else %}\n        {{- '<|im_start|>' + message.role + '\\n' + content }}\n    {%- endif %}\n"
    "    {{- '<|im_end|>\\n' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n"
)
TYPES = (  # a macro that calls itself, as templates that write tools as TypeScript have
    "{%- macro kind(p) -%}{%- if p.type == 'object' -%}{ {%- for name, value in p.properties|dictsort -%}"
    "{{ name }}{{ '' if name in p.get('required', []) else '?' }}: {{ kind(value) }}{{ ', ' if not loop.last }}"
    "{%- endfor -%} }{%- elif p.type == 'array' -%}{{ kind(p['items']) }}[]{%- elif p.enum is defined -%}"
    "{{ p.enum | map('tojson') | join(' | ') }}{%- else -%}{{ p.type | upper }}{%- endif -%}{%- endmacro -%}"
    "{% for tool in tools or [] %}{{ '%-8s' | format(tool.name) }} {{ tool.name.title() }}"
    "({{ kind(tool.parameters) }}){{ '\n' }}{% endfor %}"
    "{% for m in messages | rejectattr('role', 'equalto', 'system') %}{{ '{}: {}'.format(m.role, m.content | "
    "replace('\n', ' ') | indent(2)) }}{{ '\n' }}{% endfor %}{{ messages | map(attribute='role') | unique | list }}"
    "{% generation %}{{ 'x' * 3 }}{% endgeneration %}{% for m in messages %}{% if loop.index > 2 %}{% break %}"
    "{% endif %}{{ loop.cycle('a', 'b') }}{{ loop.revindex }}{% endfor %}"
)
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALL = {"llama": LLAMA, "gemma": GEMMA, "qwen": QWEN, "types": TYPES, "chatml": CHATML}

TOOLS = [
    {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["city"],
        },
    }
]
CONVERSATIONS = [
    [{"role": "user", "content": "hello"}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "naïve 日本 😀\n\n"}],
    [
        {"role": "user", "content": "q <think>"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "no"},
    ],
]
