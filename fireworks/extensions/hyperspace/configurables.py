"""Configurable classes: objects built from plain configurations, with every default recorded.

A configuration is what JSON can hold. `{"className": "Attention", "heads": 4}` describes one component: a class of a
registry and its parameters. Classes name their own defaults (`get_default_config`), so a stored configuration can be
filled in and read, years later, without the code that it was written for.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
import typing
from abc import ABCMeta
from collections.abc import Iterable, Mapping
from typing import Any

from fireworks.utils.exceptions import ConfigError, did_you_mean

__all__ = [
    "CLASS_NAME",
    "Configurable",
    "ConfigurableDataclass",
    "RegisteredAbstractMeta",
    "factories",
    "fill_in_defaults",
    "update_config",
]

CLASS_NAME = "className"

#: Every registry by its name.
factories: dict[str, RegisteredAbstractMeta] = {}


class RegisteredAbstractMeta(ABCMeta):
    """The class of classes that keep a list of their subclasses.

    A class made with `is_registry=True` collects its subclasses, and theirs, by name in `subclass_registry`, and builds
    them with `factory(name, params)`; `factories` holds all registries by name.

    Raises:
        RuntimeError: A registry of that name exists, or a registry has a class of that name. Running the cell of a
            notebook again is neither: a class of the same module and name replaces the one before.

    Example:
        >>> class Shape(metaclass=RegisteredAbstractMeta, is_registry=True): ...
        >>> class Circle(Shape):
        ...     def __init__(self, radius):
        ...         self.radius = radius
        >>> Shape.subclass_registry
        {'Circle': <class '...Circle'>}
        >>> Shape.factory("Circle", {"radius": 2}).radius
        2
    """

    subclass_registry: dict[str, RegisteredAbstractMeta]
    registry: RegisteredAbstractMeta | None

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], is_registry: bool = False, **kwargs: Any
    ) -> RegisteredAbstractMeta:
        cls = super().__new__(mcs, name, bases, namespace, **kwargs)
        if is_registry:
            _enter(factories, cls, f"a registry called {name!r} exists already")
            cls.registry, cls.subclass_registry = cls, {}
        elif (registry := getattr(cls, "registry", None)) is not None:
            _enter(registry.subclass_registry, cls, f"{registry.__name__} has a class {name!r} already")
        return cls

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **kwargs: Any) -> None:
        kwargs.pop("is_registry", None)
        super().__init__(name, bases, namespace, **kwargs)

    def factory(cls, name: str, params: Mapping[str, Any] | None = None) -> Any:
        """An object of the class called `name`, built with `params` over its defaults.

        Raises:
            ConfigError: The registry has no class of that name, or the class no such parameter.
        """
        return build({**(params or {}), CLASS_NAME: name}, _registry_of(cls))


def _enter(registry: dict[str, RegisteredAbstractMeta], cls: RegisteredAbstractMeta, problem: str) -> None:
    old = registry.get(cls.__name__)
    if old is not None and (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__):
        raise RuntimeError(f"{problem} (in {old.__module__}); choose another name for the one in {cls.__module__}")
    registry[cls.__name__] = cls


def _registry_of(cls: RegisteredAbstractMeta) -> RegisteredAbstractMeta:
    registry: RegisteredAbstractMeta | None = getattr(cls, "registry", None)
    if registry is None:
        raise RuntimeError(f"{cls.__name__} belongs to no registry; give its base class `is_registry=True`")
    return registry


class Configurable(metaclass=RegisteredAbstractMeta):
    """A base for classes that are built from configurations.

    Make one registry per kind of component, `class Aggregation(Configurable, is_registry=True)`, and subclass that.
    Defaults belong to the class: return them from `get_default_config`. A parameter annotated with a registry (or a
    list of one) receives the built component; any other nested configuration arrives as a dict, defaults filled in.

    Example:
        >>> class Schedule(Configurable, is_registry=True): ...
        >>> class Constant(Schedule):
        ...     def __init__(self, rate, epochs):
        ...         self.rate, self.epochs = rate, epochs
        ...     @classmethod
        ...     def get_default_config(cls):
        ...         return {"rate": 0.1, "epochs": 5}
        >>> vars(Schedule.from_config({"className": "Constant", "rate": 0.5}))
        {'rate': 0.5, 'epochs': 5}
    """

    registry = None

    @classmethod
    def get_default_config(cls) -> dict[str, Any]:
        """The defaults of the parameters: those in the signature of `__init__`, unless a subclass returns its own."""
        return {
            name: copy.deepcopy(parameter.default)
            for name, parameter in _parameters(cls).items()
            if parameter.default is not parameter.empty
        }

    #: Another name of `get_default_config`; a class may define either.
    get_default_values = get_default_config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = {"get_default_config", "get_default_values"} & vars(cls).keys()
        if len(names) == 1:  # the class defines one of them; the other must not be that of its base
            (defined,) = names
            (other,) = {"get_default_config", "get_default_values"} - names
            setattr(cls, other, vars(cls)[defined])

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """An object of the class that `config["className"]` names in this registry; `config` is left as it is.

        Raises:
            ConfigError: Unknown classes or parameters anywhere in it, all of them, with the nearest names.
        """
        return build(config, _registry_of(cls))


@dataclasses.dataclass
class ConfigurableDataclass(Configurable):
    """A Configurable whose parameters are the fields of a dataclass; fields with a default give the default config.

    Example:
        >>> @dataclasses.dataclass
        ... class Optimizer(ConfigurableDataclass, is_registry=True):
        ...     rate: float
        >>> @dataclasses.dataclass
        ... class Momentum(Optimizer):
        ...     beta: float = 0.9
        >>> Momentum.get_default_config()
        {'beta': 0.9}
        >>> Optimizer.from_config({"className": "Momentum", "rate": 0.5})
        Momentum(rate=0.5, beta=0.9)
    """

    @classmethod
    def get_default_config(cls) -> dict[str, Any]:
        """Field name → default, for the fields that have one; components among them as configurations."""
        defaults: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            if not field.init:
                continue
            if field.default is not dataclasses.MISSING:
                defaults[field.name] = as_config(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                defaults[field.name] = as_config(field.default_factory())
        return defaults

    def to_config(self) -> dict[str, Any]:
        """The configuration that builds this object again.

        Example:
            >>> @dataclasses.dataclass
            ... class Seed(ConfigurableDataclass, is_registry=True):
            ...     value: int = 0
            >>> Seed(3).to_config()
            {'className': 'Seed', 'value': 3}
        """
        fields = {field.name: as_config(getattr(self, field.name)) for field in dataclasses.fields(self) if field.init}
        return {CLASS_NAME: type(self).__name__, **fields}


def as_config(value: Any) -> Any:
    """A copy of the value as JSON would hold it: components as configurations, tuples as lists."""
    if isinstance(value, ConfigurableDataclass):
        return value.to_config()
    if isinstance(value, Mapping):
        return {key: as_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_config(item) for item in value]
    return copy.deepcopy(value)


def fill_in_defaults(params: Mapping[str, Any], factory_name: str | None = None) -> dict[str, Any]:
    """The configuration with every default written out, at every depth, inside defaults and lists too.

    Args:
        params: One component (with `factory_name`), or parameters among which components are found by their
            `className`. The key tells the registry: its name, as it is or in lower case with underscores
            (`training_schedule` for `TrainingSchedule`). Under another key the class must be of one registry only.
        factory_name: The registry that `params` itself is a component of; found by its `className` otherwise.

    Returns:
        A new dict; `params` is left as it is.

    Raises:
        ConfigError: One error for all that is wrong in it: unknown registries, classes and parameters, each with where
            it stands and the nearest known name; a component without a `className`.

    Example:
        >>> @dataclasses.dataclass
        ... class Aggregation(ConfigurableDataclass, is_registry=True):
        ...     layers: list = dataclasses.field(default_factory=lambda: [50, 10])
        >>> class Mean(Aggregation): ...
        >>> fill_in_defaults({"aggregation": {"className": "Mean"}, "epochs": 3})
        {'aggregation': {'className': 'Mean', 'layers': [50, 10]}, 'epochs': 3}
    """
    problems: list[str] = []
    if factory_name is None:
        filled = _fill(params, None, "", problems)
    elif factory_name in factories:
        filled = _fill_component(params, factories[factory_name], "", problems)
    else:
        problems.append(
            f"no registry {factory_name!r}{did_you_mean(factory_name, factories)}; there are {_names(factories)}"
        )
        filled = {}
    _raise(problems)
    return filled


def update_config(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`old` with the values of `new` over it: keys merge at every depth, but another `className` replaces the subtree.

    Parameters of one class mean nothing to another: that is why a changed class starts anew.

    Example:
        >>> old = {"model": {"className": "Tree", "depth": 3, "leaves": 8}, "seed": 1}
        >>> update_config(old, {"model": {"depth": 5}})
        {'model': {'className': 'Tree', 'depth': 5, 'leaves': 8}, 'seed': 1}
        >>> update_config(old, {"model": {"className": "Linear"}})
        {'model': {'className': 'Linear'}, 'seed': 1}
    """
    if new.get(CLASS_NAME, old.get(CLASS_NAME)) != old.get(CLASS_NAME):
        return copy.deepcopy(dict(new))
    merged = copy.deepcopy(dict(old))
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = update_config(merged[key], value) if both else copy.deepcopy(value)
    return merged


def build(config: Mapping[str, Any], registry: RegisteredAbstractMeta) -> Any:
    """The object that a configuration describes: a class of the registry with its parameters over its defaults."""
    filled = fill_in_defaults(config, registry.__name__)
    cls = registry.subclass_registry[filled.pop(CLASS_NAME)]
    hints = _hints(cls)
    given = {name: _build_nested(value, _registry_in(hints.get(name))) for name, value in filled.items()}
    missing = [
        name
        for name, parameter in _parameters(cls).items()
        if parameter.default is parameter.empty and name not in given and not _is_variadic(parameter)
    ]
    _raise([f"{cls.__name__} needs a value for {name!r}, which has no default" for name in missing])
    return cls(**given)


def _build_nested(value: Any, registry: RegisteredAbstractMeta | None) -> Any:
    if registry is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_build_nested(item, registry) for item in value]
    return build(value, registry) if isinstance(value, Mapping) else value


def _fill(value: Any, registry: RegisteredAbstractMeta | None, path: str, problems: list[str]) -> Any:
    """A value at `path` with defaults filled in; `registry` is what its key or annotation says it belongs to."""
    if isinstance(value, (list, tuple)):
        return [_fill(item, registry, f"{path}[{i}]", problems) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return copy.deepcopy(value)
    if CLASS_NAME in value or registry is not None:
        return _fill_component(value, registry or _registry_with(value[CLASS_NAME], path, problems), path, problems)
    return {key: _fill(item, _registry_for(key), f"{path}.{key}".lstrip("."), problems) for key, item in value.items()}


def _fill_component(
    config: Mapping[str, Any], registry: RegisteredAbstractMeta | None, path: str, problems: list[str]
) -> dict[str, Any]:
    where = f"{path}: " if path else ""
    if registry is None:  # said already
        return dict(config)
    known = registry.subclass_registry
    if CLASS_NAME not in config:
        problems.append(f"{where}expected a {CLASS_NAME!r} of {registry.__name__}, which are {_names(known)}")
        return dict(config)
    name = config[CLASS_NAME]
    if not isinstance(name, str) or name not in known:
        near = did_you_mean(str(name), known)
        problems.append(f"{where}{registry.__name__} has no class {name!r}{near}; it has {_names(known)}")
        return dict(config)
    cls = known[name]
    given = {key: value for key, value in config.items() if key != CLASS_NAME}
    accepted = _accepted(cls)
    if accepted is not None:
        problems += [
            f"{where}{name} has no parameter {key!r}{did_you_mean(str(key), accepted)}; it has {_names(accepted)}"
            for key in given
            if key not in accepted
        ]
    hints = _hints(cls)
    merged = update_config(_defaults(cls), given)
    return {CLASS_NAME: name} | {
        key: _fill(value, _registry_in(hints.get(key)) or _registry_for(key), f"{path}.{key}".lstrip("."), problems)
        for key, value in merged.items()
    }


def _defaults(cls: type) -> dict[str, Any]:
    return cls.get_default_config() if hasattr(cls, "get_default_config") else {}


def _parameters(cls: type) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(cls).parameters)


def _is_variadic(parameter: inspect.Parameter) -> bool:
    return parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)


def _accepted(cls: type) -> set[str] | None:
    """The names of the parameters of a class, or None when it takes any."""
    parameters = _parameters(cls)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return {name for name, parameter in parameters.items() if not _is_variadic(parameter)} | _defaults(cls).keys()


def _hints(cls: type) -> dict[str, Any]:
    """The annotations of the parameters, where they can be resolved."""
    try:
        return typing.get_type_hints(cls) | typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    except NameError:  # an annotation that exists for type checkers only
        return {}


def _registry_in(hint: Any) -> RegisteredAbstractMeta | None:
    """The registry that an annotation names: itself, or inside `list[...]`, `X | None` and the like."""
    if isinstance(hint, RegisteredAbstractMeta):
        return getattr(hint, "registry", None)
    inner = (_registry_in(argument) for argument in typing.get_args(hint))
    return next((registry for registry in inner if registry is not None), None)


def _registry_for(key: Any) -> RegisteredAbstractMeta | None:
    """The registry whose name the key is, as it is or in lower case with underscores."""
    if key in factories:
        return factories[key]
    return next((registry for name, registry in factories.items() if _with_underscores(name) == key), None)


def _with_underscores(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _registry_with(name: Any, path: str, problems: list[str]) -> RegisteredAbstractMeta | None:
    """The one registry that has a class of this name."""
    where = f"{path}: " if path else ""
    having = [registry for registry in factories.values() if name in list(registry.subclass_registry)]
    if len(having) == 1:
        return having[0]
    if having:
        found = " and ".join(registry.__name__ for registry in having)
        problems.append(f"{where}{found} each have a class {name!r}; call the key by the registry that is meant")
    else:
        known = sorted({name for registry in factories.values() for name in registry.subclass_registry})
        problems.append(f"{where}no registry has a class {name!r}{did_you_mean(str(name), known)}")
    return None


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _raise(problems: list[str]) -> None:
    if len(problems) > 1:
        lines = [f"  {number}. {problem}" for number, problem in enumerate(problems, start=1)]
        problems = ["\n".join([f"{len(problems)} things are wrong in the configuration:", *lines])]
    if problems:
        raise ConfigError(problems[0])
