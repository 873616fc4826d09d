"""An outdoor shop with an AI assistant, instrumented: `python run.py` starts it with everything it
needs.

LaunchDarkly chooses the assistant's prompt (flag `assistant-prompt`). A session is a visit: many
requests, over all workers, until the visitor leaves or falls silent; then LaunchDarkly hears what
came of the prompt.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from threading import Thread

import ldclient
from assistant import Assistant
from flask import (
    Flask,
    Request,
    Response,
    redirect,
    render_template,
    request,
    session,
    stream_with_context,
    url_for,
)
from ldclient import Context
from werkzeug.wrappers import Response as AnyResponse

import ldinstrument as ld
from ldinstrument.integrations.flask import end_session, instrument
from ldinstrument.stores import SessionStore, open_store

FLAG = "assistant-prompt"
PRODUCTS = {
    "tent": ("Tent", 189.0),
    "bag": ("Sleeping bag", 129.0),
    "lamp": ("Headlamp", 39.0),
    "stove": ("Stove", 59.0),
}


def create_app(assistant: Assistant | None = None) -> Flask:
    """The application; gunicorn calls this once in each worker, so each has a LaunchDarkly client
    of its own.
    """
    ldclient.set_config(ld.launchdarkly_config())
    ldclient.get()
    helper = assistant or Assistant()
    Thread(target=helper.prepare, daemon=True).start()
    app = Flask(__name__)
    app.secret_key = os.environ.get("SHOP_SECRET", "only for this example")
    instrument(app, context=visitor, store=visits())
    app.before_request(remember_visitor)
    app.add_url_rule("/", view_func=shop)
    app.add_url_rule("/ask", view_func=lambda: ask(helper), endpoint="ask", methods=["POST"])
    app.add_url_rule("/feedback", view_func=feedback, methods=["POST"])
    app.add_url_rule("/cart", view_func=add_to_cart, methods=["POST"])
    app.add_url_rule("/checkout", view_func=checkout, methods=["POST"])
    app.add_url_rule("/leave", view_func=leave, methods=["POST"])
    ld.bootstrap(wait=False)  # LaunchDarkly gets the metrics that this program's events feed
    return app


def visits() -> SessionStore:
    """Where a visit lives while its requests go to one worker and another; a minute of silence ends
    it.
    """
    return open_store(os.environ.get("SHOP_STORE", "memory:"), idle=60, interval=5)


# -- who it is -------------------------------------------------------------------------------------


def remember_visitor() -> None:
    session.setdefault("visitor", uuid.uuid4().hex)


def visitor(request: Request) -> Context | None:
    """What flags are evaluated for and events are sent for: one and the same context."""
    return (
        Context.builder(session["visitor"]).anonymous(True).build()
        if "visitor" in session
        else None
    )


def current_prompt() -> str:
    who = visitor(request)
    return str(ldclient.get().variation(FLAG, who, "brief")) if who is not None else "brief"


# -- pages -----------------------------------------------------------------------------------------


def shop() -> str:
    cart = [PRODUCTS[key] for key in session.get("cart", [])]
    total = sum(price for _, price in cart)
    bought = request.args.get("bought")
    return render_template(
        "shop.html", products=PRODUCTS, cart=cart, total=total, bought=bought, numbers=numbers()
    )


def numbers() -> str | None:
    """Where a person can watch them arrive; nobody's business when LaunchDarkly is not the local
    one.
    """
    return os.environ.get("LDINSTRUMENT_URL")


def ask(assistant: Assistant) -> Response:
    """The answer streams, and the session stays open until its last word."""
    words: Iterator[str] = assistant.answer(request.form["question"], current_prompt())
    return Response(stream_with_context(words), mimetype="text/plain")


def feedback() -> tuple[str, int]:
    ld.track_feedback(request.form["thumb"] == "up", source="assistant")
    return "", 204


def add_to_cart() -> AnyResponse:
    if (product := request.form["product"]) in PRODUCTS:
        session["cart"] = [*session.get("cart", []), product]
    return redirect(url_for("shop"))


@ld.track_task("shop.checkout", data=lambda response: {"prompt": current_prompt()})
def checkout() -> AnyResponse:
    cart = session.pop("cart", [])
    total = sum(PRODUCTS[key][1] for key in cart)
    if cart:
        ld.track_conversion(total, items=len(cart))
    return redirect(url_for("shop", bought=len(cart)))


def leave() -> str:
    """The visit ends here and now, instead of after a minute of silence."""
    end_session()
    session.clear()
    return render_template("bye.html", numbers=numbers())
